"""What workers tell: results, progress, chunks, beats. What comes late or from a worker that does not hold the job is
acknowledged and changes nothing (protocol G.4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from runpod_worker.core.errors import JobNotFound, ServiceRefusal, StaleAttempt
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Failed, LeaseRenewed, Stopped, Succeeded, WorkerEvent, infer_failure
from runpod_worker.service.http import wire
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Ask, Handed
from runpod_worker.service.queue.streams import Streams
from runpod_worker.service.queue.waiters import started, together
from runpod_worker.service.settings import ServiceSettings

T = TypeVar("T")

TIMINGS_KEPT = 10_000
"""Jobs whose timings are remembered, the latest; they are for people, not for rules."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks: a worker, and the attempt it speaks of (None from workers that do not count)."""

    endpoint: str
    worker: str
    attempt: int | None = None


class Received(msgspec.Struct, frozen=True):
    """What became of a report. `stale`: the worker did not hold that attempt. `handed`: its next jobs."""

    stale: bool
    handed: list[Handed]


class Reports:
    """Takes in what workers tell."""

    def __init__(self, jobs: Jobs, takes: Takes, streams: Streams, settings: ServiceSettings) -> None:
        self._jobs = jobs
        self._takes = takes
        self._streams = streams
        self._settings = settings
        self._timings: OrderedDict[str, bytes] = OrderedDict()
        self._progress: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def timings(self, job_id: str) -> bytes | None:
        """What the worker measured on the job, as JSON."""
        return self._timings.get(job_id)

    async def done(self, who: Holder, job_id: str, report: wire.Report, ask: Ask | None = None) -> Received:
        """A result, an error, a confirmed stop or progress. With `ask`, the next jobs come with the answer to a final
        report; they are written together with it."""
        if report.progress:
            return Received(await self._stale(self._advance(who, job_id, report)), [])
        ending = started(self._stale(self._end(who, job_id, report)))
        handing = started(self._takes.take(ask, 0)) if ask else None
        try:
            stale = await ending
        finally:
            handed = await handing if handing else []
        return Received(stale, handed)

    async def refuse(self, who: Holder, job_id: str, why: ServiceRefusal) -> None:
        """The worker's result cannot be taken in, ever: the job fails at once, not when its lease is over."""
        if self._held(who, job_id) is not None:
            error = f"the result was refused: {why}"
            event = Failed(at=self._jobs.now(), worker=who.worker, attempt=who.attempt, error=error)
            await self._jobs.try_change(job_id, event)

    async def chunks(self, who: Holder, job_id: str, chunks: list[bytes], index: int | None) -> Received:
        """Pieces of a stream."""
        job = self._held(who, job_id)
        if job is None:
            return Received(True, [])
        await self._streams.append(job_id, chunks, index)
        self._jobs.moved.ring(job_id, True)
        if job.lease and job.lease.until - self._jobs.now() < self._settings.lease_s / 2:
            await self._jobs.try_change(job_id, self._beat(job, who))
        return Received(False, [])

    async def beat(self, who: Holder, job_ids: list[str]) -> None:
        """The worker is alive and holds these jobs. A job that it was told to stop gets no more time for that."""
        held = [job for job in (self._held(who, job_id) for job_id in job_ids) if job is not None]
        await together([self._jobs.try_change(job.id, self._beat(job, who)) for job in held if job.stop is None])

    async def _end(self, who: Holder, job_id: str, report: wire.Report) -> None:
        if self._held(who, job_id) is None:
            raise StaleAttempt
        self._progress.pop(job_id, None)
        if report.timings is not None:
            _keep(self._timings, job_id, report.timings)
        await self._jobs.change(job_id, self._final(who, report), output=report.output)

    def _final(self, who: Holder, report: wire.Report) -> WorkerEvent:
        at = self._jobs.now()
        if report.stopped:
            return Stopped(at=at, worker=who.worker, attempt=who.attempt)
        if report.error is not None:
            kind = infer_failure(report.error)
            return Failed(at=at, worker=who.worker, attempt=who.attempt, error=report.error, kind=kind)
        return Succeeded(at=at, worker=who.worker, attempt=who.attempt)

    async def _advance(self, who: Holder, job_id: str, report: wire.Report) -> None:
        job = self._held(who, job_id)
        if job is None:
            raise StaleAttempt
        if report.seq is not None:
            mark = (job.attempt, report.seq)
            if mark < self._progress.get(job_id, mark):
                return
            _keep(self._progress, job_id, mark)
        await self._jobs.change(job_id, self._beat(job, who), output=report.output)

    def _beat(self, job: Job, who: Holder) -> LeaseRenewed:
        now = self._jobs.now()
        lease_s = self._settings.lease_s
        if job.stop is not None and job.lease is not None:
            lease_s = job.lease.until - now
        return LeaseRenewed(at=now, worker=who.worker, attempt=who.attempt, lease_s=lease_s)

    def _held(self, who: Holder, job_id: str) -> Job | None:
        job = self._jobs.store.get(job_id)
        if job is None or job.endpoint != who.endpoint or job.lease is None or job.lease.worker != who.worker:
            return None
        return job if who.attempt in (None, job.attempt) else None

    async def _stale(self, step: Coroutine[Any, Any, None]) -> bool:
        try:
            await step
        except (StaleAttempt, JobNotFound):
            return True
        return False


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > TIMINGS_KEPT:
        kept.popitem(last=False)
