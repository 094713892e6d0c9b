"""The operations of callers on jobs. `core.lifecycle` decides every status."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import CancelRequested, Retried, TtlSet
from runpod_worker.service.journal.port import Delivery, Journal
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import MAX_RECENT_JOBS, Ended, Jobs
from runpod_worker.service.queue.polls import Submission
from runpod_worker.service.queue.reports import Reports
from runpod_worker.service.queue.sweep import MAX_COMMIT_JOBS, Sweep
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings


def _uuid() -> str:
    """A UUID of version 4 as text, three times as fast as `uuid.uuid4`."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class StreamRead(NamedTuple):
    """Chunks that no reader had yet, the job, and whether these are all chunks for now."""

    job: Job
    chunks: list[bytes]
    drained: bool


class JobQueue:
    """The job service without HTTP, in one event loop.

    `takes` and `reports` are the operations of workers. `sweep.start()` and then `sweep.run()` must run beside it.

    Args:
        journal: makes jobs durable; its jobs are loaded here, which may take a moment.
        settings: limits, timeouts, retention.
        now: the clock, in seconds since the epoch.
        new_id: makes job ids.
        max_recent: number of ended jobs that stay in memory; others are read from the journal.
    """

    def __init__(
        self,
        journal: Journal,
        settings: ServiceSettings,
        *,
        now: Callable[[], float],
        new_id: Callable[[], str] = _uuid,
        max_recent: int = MAX_RECENT_JOBS,
    ) -> None:
        self.settings = settings
        self.draining = False
        self._now = now
        self._new_id = new_id
        self.jobs = Jobs(journal, now, max_recent=max_recent)
        self.workers = self.jobs.workers
        self.takes = Takes(self.jobs, settings)
        self.reports = Reports(self.jobs, self.takes, settings)
        self.sweep = Sweep(self.jobs, self.takes, settings)

    async def submit(self, endpoint: str, submission: Submission, *, sync: bool = False) -> Job:
        """Add a job, assign it if a take is open, commit, and return it.

        Show the id of a `sync` job to its caller only after `flush`, or when the job has ended.

        Raises:
            BacklogFull: the endpoint has the maximum number of queued jobs.
            StoreUnavailable: the job was not written.
        """
        now = self._now()
        job = Job(
            id=f"sync-{self._new_id()}" if sync else self._new_id(),
            endpoint=endpoint,
            created_at=now,
            queued_at=now,
            policy=submission.policy,
            webhook=submission.webhook,
            sync=sync,
        )
        await self.takes.add(job, submission)
        return job

    async def flush(self, job_id: str) -> None:
        """Make the job survive a power cut. Await this before its caller gets its id.

        Raises:
            StoreUnavailable: the write failed.
        """
        job = self.jobs.get(job_id)
        if job is not None and not job.final:
            transaction = Transaction(self.jobs)
            transaction.rewrite(job_id)
            await transaction.commit()

    async def wait_end(self, job_id: str, timeout_s: float) -> Ended | None:
        """Wait for the end of the job and return it; None after `timeout_s`."""
        job = self.jobs.get(job_id)
        if job is None or not job.final:
            return await self.jobs.ended.wait(job_id, timeout_s)
        job = await self.jobs.get_committed(job_id)
        return Ended(job, await self.jobs.body("outputs", job_id)) if job is not None and job.final else None

    async def get(self, endpoint: str, job_id: str) -> Job:
        """Return the committed job.

        Raises:
            JobNotFound: the endpoint has no such job, or its retention has ended.
        """
        job = await self.jobs.get_committed(job_id)
        if job is None or job.endpoint != endpoint or self._is_forgotten(job):
            raise JobNotFound
        return job

    async def read_stream(self, endpoint: str, job_id: str, timeout_s: float) -> StreamRead:
        """Wait up to `timeout_s` for unread chunks or the end of the job, and return the unread chunks.

        The chunks count as read; `unread` reverts that.
        """
        read = await self._read_now(endpoint, job_id)
        if read.chunks or read.job.final or not await self.jobs.moved.wait(job_id, timeout_s):
            return read
        return await self._read_now(endpoint, job_id)

    def unread(self, job_id: str, count: int) -> None:
        """Mark the last `count` chunks as unread, because they did not reach their reader."""
        if self.jobs.get(job_id) is not None:
            self.jobs.logs.unread(job_id, count)

    def chunks(self, job_id: str) -> list[bytes]:
        """Return all chunks of the job's latest attempt, read and unread."""
        return [] if self.jobs.get(job_id) is None else self.jobs.logs.latest(job_id)

    async def cancel(self, endpoint: str, job_id: str) -> Job:
        """Cancel the job and return it. A job that has ended is not changed.

        The job is still IN_PROGRESS if its worker has not confirmed the stop within `cancel_poll_timeout_s`.
        """
        job = await self.get(endpoint, job_id)
        if job.final:
            return job
        transaction = Transaction(self.jobs)
        changed = transaction.try_apply(job_id, CancelRequested(at=self._now()))
        await transaction.commit()
        if changed is not None and not changed.final:  # its worker confirms stops
            await self.wait_end(job_id, self.settings.cancel_poll_timeout_s)
        return await self.get(endpoint, job_id)

    async def retry(self, endpoint: str, job_id: str) -> Job:
        """Queue the job again under the same id, and return it.

        Raises:
            IllegalTransition: the job is neither FAILED nor TIMED_OUT.
        """
        await self.get(endpoint, job_id)
        transaction = Transaction(self.jobs)
        job = transaction.apply(job_id, Retried(at=self._now()))
        await transaction.commit()
        await self.takes.dispatch(endpoint)
        return job

    async def set_ttl(self, endpoint: str, job_id: str, ttl_ms: int) -> None:
        """Set the time that the job may still live. A job that has ended is not changed."""
        await self.get(endpoint, job_id)
        transaction = Transaction(self.jobs)
        transaction.try_apply(job_id, TtlSet(at=self._now(), ttl_ms=ttl_ms))
        await transaction.commit()

    async def purge(self, endpoint: str) -> int:
        """Cancel the queued jobs, and return their number."""
        queued = self.jobs.index.head(endpoint, self.jobs.index.queue_length(endpoint))
        removed = 0
        for start in range(0, len(queued), MAX_COMMIT_JOBS):
            transaction = Transaction(self.jobs)
            event = CancelRequested(at=self._now())
            for job in queued[start : start + MAX_COMMIT_JOBS]:
                newest = self.jobs.get(job.id)
                if newest is not None and newest.status is Status.IN_QUEUE:  # a worker may have taken it meanwhile
                    removed += transaction.try_apply(job.id, event) is not None
            await transaction.commit()
        return removed

    async def settle(self, delivery: Delivery) -> None:
        """Remove a webhook that was delivered, or that failed for the last time."""
        await self._change_delivery(delivery, None)

    async def postpone(self, delivery: Delivery, next_at: float) -> None:
        """Record a failed delivery; the next try is due at `next_at`."""
        later = Delivery(job_id=delivery.job_id, url=delivery.url, tries=delivery.tries + 1, next_at=next_at)
        await self._change_delivery(delivery, later)

    def drain(self) -> None:
        """Assign no more jobs, answer every waiting request, and let later requests return without waiting."""
        self.draining = True
        for waiters in (self.takes.polls, self.workers.waiters, self.jobs.ended, self.jobs.moved):
            waiters.close()

    async def _read_now(self, endpoint: str, job_id: str) -> StreamRead:
        job = await self.get(endpoint, job_id)
        return StreamRead(job, *self.jobs.logs.read(job_id))

    def _is_forgotten(self, job: Job) -> bool:
        kept_s = self.settings.sync_retention_s if job.sync else self.settings.retention_s
        return job.ended_at is not None and self._now() - job.ended_at > kept_s

    async def _change_delivery(self, before: Delivery, after: Delivery | None) -> None:
        """Change a delivery, unless the job was retried and has ended again."""
        await self.jobs.wait_committed(before.job_id)
        if self.jobs.deliveries.get(before.job_id) == before:
            transaction = Transaction(self.jobs)
            transaction.rewrite(before.job_id, delivery=after, drops_delivery=after is None)
            await transaction.commit()
