"""What callers can do with jobs, and the parts that do it. Statuses are decided in `core.lifecycle`, nowhere here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import CancelRequested, Retried, TtlSet
from runpod_worker.service.http import wire
from runpod_worker.service.journal.port import Store
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import Ended, Jobs
from runpod_worker.service.queue.reports import Reports
from runpod_worker.service.queue.streams import Streams
from runpod_worker.service.queue.sweep import BATCH, Sweep
from runpod_worker.service.queue.waiters import together
from runpod_worker.service.queue.workers import Workers
from runpod_worker.service.settings import ServiceSettings


def _nobody() -> None:
    """Nobody wants to know that a webhook is owed."""


def _uuid() -> str:
    """A UUID of version 4 as text, at a third of what `uuid.uuid4` costs."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply to /stream, how many chunks it takes from the buffer, and whether it says anything new."""

    view: bytes
    count: int
    news: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Chunks that nobody had read before, the job after them, and whether there are no more for now."""

    job: Job
    chunks: list[bytes]
    drained: bool


class Service:
    """The job service without HTTP: use cases on a store. All of it lives in one event loop.

    `takes` and `reports` are the workers' side; `sweep.start()`, then `sweep.run()`, must run beside it.

    Args:
        store: where jobs are kept.
        settings: limits, holds, retention.
        now: the clock, in seconds since the epoch.
        new_id: makes job ids.
        on_owed: called when a job with a webhook has ended.
    """

    def __init__(
        self,
        store: Store,
        settings: ServiceSettings,
        *,
        now: Callable[[], float],
        new_id: Callable[[], str] = _uuid,
        on_owed: Callable[[], None] = _nobody,
    ) -> None:
        self.settings = settings
        self.draining = False
        self._store = store
        self._now = now
        self._new_id = new_id
        self._streams = Streams(store)
        self.workers = Workers(store, now)
        self.jobs = Jobs(store, now, self.workers, self._streams, on_owed)
        self.takes = Takes(self.jobs, self.workers, settings)
        self.reports = Reports(self.jobs, self.takes, self._streams, settings)
        self.sweep = Sweep(self.jobs, self.takes, self.workers, settings)

    async def submit(self, endpoint: str, asked: wire.Submission, *, sync: bool = False) -> Job:
        """A new job, safely stored, and on its way if a worker waits for one.

        Raises:
            BacklogFull: the endpoint takes no more jobs for now.
            StoreUnavailable: nothing was written.
        """
        now = self._now()
        job = Job(
            id=f"sync-{self._new_id()}" if sync else self._new_id(),
            endpoint=endpoint,
            created_at=now,
            queued_at=now,
            policy=asked.policy,
            webhook=asked.webhook,
            sync=sync,
        )
        await self.takes.add(job, asked)
        return job

    async def secure(self, job_id: str) -> None:
        """Return once the job survives a power cut: before its caller is told its id.

        Raises:
            StoreUnavailable: it does not.
        """
        await self._store.secure(job_id)

    async def ended(self, job_id: str, timeout_s: float) -> Ended | None:
        """The job when it has ended, at the latest after that time; None if it has not."""
        job = self._store.get(job_id)
        if job is None or not job.final:
            return await self.jobs.ended.wait(job_id, timeout_s)
        settled = await self._store.settled(job_id)
        return Ended(settled or job, await self._store.output(job_id))

    async def job(self, endpoint: str, job_id: str) -> Job:
        """The job as callers may see it.

        Raises:
            JobNotFound: the endpoint has no such job, or its retention is over.
        """
        job = await self._store.settled(job_id)
        if job is None or job.endpoint != endpoint or self._forgotten(job):
            raise JobNotFound
        return job

    def _forgotten(self, job: Job) -> bool:
        kept_s = self.settings.sync_retention_s if job.sync else self.settings.retention_s
        return job.ended_at is not None and self._now() - job.ended_at > kept_s

    async def wait_ended(self, endpoint: str, job_id: str, timeout_s: float) -> Job:
        """The job once it has ended, or as it is after that time."""
        job = await self.job(endpoint, job_id)
        if not job.final and await self.ended(job_id, timeout_s):
            job = await self.job(endpoint, job_id)
        return job

    async def view(self, job: Job, *, timings: bool = False, webhook: bool = False) -> bytes:
        """What a caller, or with `webhook` its receiver, sees of the job."""
        if job.status is Status.IN_QUEUE:
            return wire.job_view(job)
        request, output = await self._store.request(job.id), await self._store.output(job.id)
        return wire.job_view(
            job,
            source=bytes(wire.stored_request(request).input) if request else None,
            output=output,
            timings=self.reports.timings(job.id) if timings else None,
            webhook=webhook,
        )

    async def webhook_body(self, job_id: str) -> bytes | None:
        """What the job's webhook is sent (protocol A.8); None when the job has not ended, or runs again."""
        job = await self._store.settled(job_id)
        if job is None or not job.final:
            return None
        return await self.view(job, webhook=True)

    async def stream(self, endpoint: str, job_id: str, timeout_s: float) -> Streamed:
        """The chunks nobody has read, once there are some or the job has ended; at the latest after that time.

        The final status is told only with the last chunk or after it.
        """
        read = await self.read(endpoint, job_id, timeout_s)
        job, chunks = read.job, read.chunks
        status = job.status if read.drained or not job.final else Status.IN_PROGRESS
        return Streamed(wire.stream_view(job, status, chunks), len(chunks), bool(chunks) or job.final)

    async def read(self, endpoint: str, job_id: str, timeout_s: float) -> Read:
        """As `stream`, for those who write another reply of it."""
        job = await self.job(endpoint, job_id)
        chunks, drained = self._streams.read(job_id)
        if not chunks and not job.final and await self.jobs.moved.wait(job_id, timeout_s):
            job = await self.job(endpoint, job_id)
            chunks, drained = self._streams.read(job_id)
        return Read(job, chunks, drained)

    async def output(self, job_id: str) -> bytes | None:
        """The job's output as JSON, None when there is none."""
        return await self._store.output(job_id)

    def chunks(self, job_id: str) -> list[bytes]:
        """All chunks of the job's latest attempt, whether or not somebody has read them."""
        return self._streams.latest(job_id)

    def unread(self, job_id: str, count: int) -> None:
        """The last `count` chunks did not reach their reader."""
        self._streams.unread(job_id, count)

    async def cancel(self, endpoint: str, job_id: str) -> Job:
        """The job, CANCELLED; or as it was if it had ended; or IN_PROGRESS still, if its worker has not confirmed in
        `cancel_poll_timeout_s` that it stopped."""
        job = await self.job(endpoint, job_id)
        if job.final:
            return job
        changed = await self.jobs.try_change(job_id, CancelRequested(at=self._now()))
        if changed is not None and not changed.final:  # its worker confirms
            await self.ended(job_id, self.settings.cancel_poll_timeout_s)
        return await self.job(endpoint, job_id)

    async def retry(self, endpoint: str, job_id: str) -> Job:
        """The job, queued once more under the same id.

        Raises:
            IllegalTransition: it is neither FAILED nor TIMED_OUT.
        """
        await self.job(endpoint, job_id)
        job = await self.jobs.change(job_id, Retried(at=self._now()))
        await self.takes.dispatch(endpoint)
        return job

    async def set_ttl(self, endpoint: str, job_id: str, ttl_ms: int) -> None:
        """Let the job live so much longer from now; one that has ended stays as it is."""
        await self.job(endpoint, job_id)
        await self.jobs.try_change(job_id, TtlSet(at=self._now(), ttl_ms=ttl_ms))

    async def purge_queue(self, endpoint: str) -> int:
        """Cancel what is queued; how many that were."""
        found, removed = self._store.queued(endpoint), 0
        for start in range(0, len(found), BATCH):
            event = CancelRequested(at=self._now())
            batch = [self.jobs.try_change(job.id, event) for job in found[start : start + BATCH]]
            removed += sum(job is not None for job in await together(batch))
        return removed

    def health(self, endpoint: str) -> dict[str, dict[str, int]]:
        """How many jobs and workers the endpoint has, by state (protocol A.7)."""
        counts = self._store.counts(endpoint)
        jobs = {
            "completed": counts.completed,
            "failed": counts.failed,
            "inProgress": counts.in_progress,
            "inQueue": counts.in_queue,
            "retried": counts.retried,
        }
        return {"jobs": jobs, "workers": self.workers.counts(endpoint)}

    def drain(self) -> None:
        """Hand over no more jobs and answer everyone who waits, now; new requests are answered without a hold."""
        self.draining = True
        self.takes.close()
        self.workers.silence()
        self.jobs.ended.silence()
        self.jobs.moved.silence()
