"""The reports of workers: outcomes, progress, chunks, heartbeats.

A late report, or a report from a worker that does not hold the job, is acknowledged and changes nothing (protocol G.4).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from runpod_worker.core.errors import ServiceRefusal, StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Failed, LeaseRenewed, Stopped, Succeeded, WorkerEvent, infer_failure
from runpod_worker.service.queue.assign import Takes, remember
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Assigned, TakeRequest
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's report on an attempt: its outcome, or its progress."""

    progress: bool = False
    stopped: bool = False
    output: bytes | None = None
    error: str | None = None
    stop_pod: bool = False
    timings: bytes | None = None
    seq: int | None = None


class Reporter(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that reports, and its attempt; None from workers without the extension `attempt`."""

    endpoint: str
    worker: str
    attempt: int | None = None


class ReportResult(msgspec.Struct, frozen=True):
    """The result of a report. `is_stale`: the worker does not hold the attempt. `assigned`: its next jobs."""

    is_stale: bool
    assigned: list[Assigned]


class Reports:
    """Applies the reports of workers."""

    def __init__(self, jobs: Jobs, takes: Takes, settings: ServiceSettings) -> None:
        self._jobs = jobs
        self._takes = takes
        self._settings = settings
        self._timings: OrderedDict[str, bytes] = OrderedDict()
        self._progress: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def timings(self, job_id: str) -> bytes | None:
        """Return the worker's timings of the job, as JSON, or None."""
        return self._timings.get(job_id)

    async def finish(
        self, reporter: Reporter, job_id: str, report: Report, request: TakeRequest | None = None
    ) -> ReportResult:
        """End the attempt. With `request`, assign the worker's next jobs in the same commit."""
        transaction = Transaction(self._jobs)
        is_stale = await self._find_held(reporter, job_id) is None
        if not is_stale:
            transaction.apply(job_id, self._outcome(reporter, report), output=report.output)
            self._progress.pop(job_id, None)
            if report.timings is not None:
                remember(self._timings, job_id, report.timings)
        assigned = self._takes.assign(transaction, request) if request is not None else []
        await transaction.commit(durable=not is_stale)
        return ReportResult(is_stale, await self._takes.load(assigned))

    async def progress(self, reporter: Reporter, job_id: str, report: Report) -> ReportResult:
        """Store the progress as the job's output. Progress with a lower `seq` than the last is dropped."""
        job = await self._find_held(reporter, job_id)
        if job is None:
            return ReportResult(True, [])
        if report.seq is not None:
            mark = (job.retries, job.attempt, report.seq)
            if mark < self._progress.get(job_id, mark):
                return ReportResult(False, [])
            remember(self._progress, job_id, mark)
        transaction = Transaction(self._jobs)
        transaction.apply(job_id, self._renewal(job, reporter), output=report.output)
        await transaction.commit()
        return ReportResult(False, [])

    async def refuse(self, reporter: Reporter, job_id: str, refusal: ServiceRefusal) -> None:
        """Fail the job whose outcome the service refuses, instead of waiting for the end of its lease."""
        if await self._find_held(reporter, job_id) is None:
            return
        error = f"the result was refused: {refusal}"
        transaction = Transaction(self._jobs)
        event = Failed(at=self._jobs.now(), worker=reporter.worker, attempt=reporter.attempt, error=error)
        transaction.apply(job_id, event)
        await transaction.commit()

    async def add_chunks(self, reporter: Reporter, job_id: str, chunks: list[bytes], index: int | None) -> ReportResult:
        """Add chunks to the attempt, and renew its lease if more than half of it has passed."""
        job = await self._find_held(reporter, job_id)
        if job is None:
            return ReportResult(True, [])
        transaction = Transaction(self._jobs)
        count = transaction.add_chunks(job_id, chunks, index)
        if job.lease is not None and job.lease.until - self._jobs.now() < self._settings.lease_s / 2:
            transaction.apply(job_id, self._renewal(job, reporter))
        await transaction.commit(durable=False)
        await self._confirm_chunks(job_id, count)
        return ReportResult(False, [])

    async def heartbeat(self, reporter: Reporter, job_ids: list[str]) -> dict[str, int]:
        """Renew the leases of these jobs, except of jobs that the worker has to stop.

        Return the attempt of each job on which the worker has a lease.
        """
        transaction = Transaction(self._jobs)
        attempts: dict[str, int] = {}
        for job_id in dict.fromkeys(job_ids):
            job = self._held(reporter, job_id)
            if job is None:
                continue
            attempts[job_id] = job.attempt
            if job.stop is None:
                transaction.apply(job_id, self._renewal(job, reporter))
        await transaction.commit(durable=False)
        return attempts

    async def _confirm_chunks(self, job_id: str, count: int) -> None:
        """Wait until `count` chunks are written. Repeated chunks may be part of a write that is still running."""
        if self._jobs.get(job_id) is None or self._jobs.logs.of(job_id).written >= count:
            return
        await self._jobs.wait_committed(job_id)
        if self._jobs.logs.of(job_id).written < count:
            raise StoreUnavailable

    def _outcome(self, reporter: Reporter, report: Report) -> WorkerEvent:
        at, worker, attempt = self._jobs.now(), reporter.worker, reporter.attempt
        if report.stopped:
            return Stopped(at=at, worker=worker, attempt=attempt)
        if report.error is not None:
            kind = infer_failure(report.error)
            return Failed(at=at, worker=worker, attempt=attempt, error=report.error, kind=kind)
        return Succeeded(at=at, worker=worker, attempt=attempt)

    def _renewal(self, job: Job, reporter: Reporter) -> LeaseRenewed:
        now = self._jobs.now()
        lease_s = self._settings.lease_s
        if job.stop is not None and job.lease is not None:
            lease_s = job.lease.until - now
        return LeaseRenewed(at=now, worker=reporter.worker, attempt=reporter.attempt, lease_s=lease_s)

    async def _find_held(self, reporter: Reporter, job_id: str) -> Job | None:
        """Like `_held`, but before it returns None it waits for the write that took the job from the worker."""
        job = self._held(reporter, job_id)
        if job is None:
            await self._jobs.wait_committed(job_id)
            job = self._held(reporter, job_id)
        return job

    def _held(self, reporter: Reporter, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        if job is None or job.endpoint != reporter.endpoint or job.lease is None:
            return None
        if job.lease.worker != reporter.worker or reporter.attempt not in (None, job.attempt):
            return None
        return job
