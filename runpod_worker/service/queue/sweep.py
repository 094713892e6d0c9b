"""Applies everything that is due: expired leases, timeouts, ttl and retention. One task sleeps between deadlines."""

from __future__ import annotations

import asyncio

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import ExecutionTimedOut, LeaseRenewed, clamp_times, due
from runpod_worker.log import log, log_errors
from runpod_worker.service.journal.port import EndedJob
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings

MAX_COMMIT_JOBS = 500
"""Jobs changed in one commit. More take several commits."""

MAX_FORGET_JOBS = 200
"""Jobs deleted in one commit. More take several, so that callers do not wait long."""

MAX_DELAY_LEASES = 0.25
"""A service that did not run for a larger part of a lease renews all leases: it did not read the heartbeats."""

MIN_DELAY_S = 0.25
"""A shorter delay is never a reason to renew leases."""

ASIDE_S = 10.0
"""A job whose change failed waits this long for the next try, so that the jobs after it are not delayed."""

MAX_FAILURES = 3
"""After as many jobs in a row the pass ends, because the fault is the store's and not theirs."""

RETRY_S = 1.0
"""The pause before the next pass after a failed write, or during the grace time after a start."""


class Sweep:
    """The service's pass over everything that is due."""

    def __init__(self, jobs: Jobs, takes: Takes, settings: ServiceSettings) -> None:
        self._jobs = jobs
        self._takes = takes
        self._settings = settings
        self._started_at = 0.0
        self._forgetting = asyncio.Lock()
        self._forget_at = 0.0
        self._aside: dict[str, float] = {}
        """The jobs whose change failed, and the time of their next try."""

    async def start(self) -> None:
        """Renew every lease, because no heartbeats arrived while the service was down.

        If the clock was set back meanwhile, no time of a job is later than now.
        """
        now = self._forget_at = self._jobs.now()
        for job_id in list(self._jobs.index):
            job = self._jobs.index.get(job_id)
            if job is not None and (clamped := clamp_times(job, now)) is not job:
                self._jobs.index.put(clamped)
        await self._renew_leases()

    async def run(self) -> None:
        """Sweep until cancelled. Call `start` first."""
        late_s = 0.0
        while True:
            try:
                await self.once(late_s)
                late_s = 0.0
            except Exception:
                log.exception("sweep.failed")
                self._jobs.timer.arm(self._jobs.now() + RETRY_S)
            late_s = max(late_s, await self._jobs.timer.wait())

    async def once(self, late_s: float = 0.0) -> None:
        """Apply everything that is due now, and arm the timer for the next deadline.

        `late_s`: for so long this process did not run. After a long time, all leases are renewed first.
        """
        max_delay_s = max(MIN_DELAY_S, self._settings.lease_s * MAX_DELAY_LEASES)
        if late_s > max_delay_s:
            log.warning("service.delayed", extra={"late_s": round(late_s, 3), "leases": await self._renew_leases()})
        now = self._jobs.now()
        overdue = self._jobs.index.overdue(now)
        self._aside = {job_id: at for job_id, at in self._aside.items() if at > now}
        graced = {job.id for job in overdue if job.id in self._aside or self._has_grace(job, now)}
        await self._apply([job for job in overdue if job.id not in graced], now)
        if now >= self._forget_at:
            self._forget_at = now + self._settings.forget_every_s
            self._jobs.workers.prune(now - self._settings.worker_retention_s)
            await self.forget(now - self._settings.retention_s, sync=False)
            await self.forget(now - self._settings.sync_retention_s, sync=True)
        self._jobs.timer.arm(min(self._forget_at, now + max_delay_s))  # often enough to notice a delay
        self._jobs.timer.arm(now + RETRY_S if graced or self._aside else self._jobs.index.next_due())

    async def forget(self, before: float, *, sync: bool) -> int:
        """Delete the jobs that ended before this time, and return their number."""
        forgotten = 0
        async with self._forgetting:  # a list read during another call names jobs which that call deletes
            while True:
                ended = await self._jobs.find_ended(before, sync=sync, limit=MAX_FORGET_JOBS)
                chosen = [job for job in ended if self._is_forgettable(job)]
                if not chosen:
                    break
                transaction = Transaction(self._jobs)
                for job in chosen:
                    transaction.forget(job)
                await transaction.commit()
                forgotten += len(chosen)
        return forgotten

    async def _renew_leases(self) -> int:
        """Renew every lease once, whatever its end, and return their number."""
        now = self._started_at = self._jobs.now()
        transaction = Transaction(self._jobs)
        leased = self._jobs.index.all_leased()
        for job in leased:
            if job.lease is not None:
                renewal = LeaseRenewed(at=now, worker=job.lease.worker, lease_s=self._settings.lease_s)
                transaction.try_apply(job.id, renewal)
        await transaction.commit(durable=False)
        return len(leased)

    def _has_grace(self, job: Job, now: float) -> bool:
        """Whether the attempt began before the service started or was delayed: its result may still arrive, within one
        lease."""
        started_before = job.taken_at is not None and job.taken_at < self._started_at
        in_grace = now < self._started_at + self._settings.lease_s
        return started_before and in_grace and isinstance(due(job, now), ExecutionTimedOut)

    async def _apply(self, overdue: list[Job], now: float) -> None:
        for start in range(0, len(overdue), MAX_COMMIT_JOBS):
            batch = overdue[start : start + MAX_COMMIT_JOBS]
            try:
                await self._apply_together(batch, now)
            except Exception:
                log.exception("sweep.split", extra={"jobs": len(batch)})
                await self._apply_one_by_one(batch, now)

    async def _apply_one_by_one(self, batch: list[Job], now: float) -> None:
        """Change each job in a commit of its own, and set aside those that fail."""
        failures = 0
        for job in batch:
            if failures == MAX_FAILURES:
                raise StoreUnavailable("no job can be changed")
            failures += 1
            self._aside[job.id] = now + ASIDE_S
            with log_errors("sweep", job=job.id):
                await self._apply_together([job], now)
                self._aside.pop(job.id, None)  # a sweep that overlaps this one may have removed it
                failures = 0

    async def _apply_together(self, batch: list[Job], now: float) -> None:
        transaction = Transaction(self._jobs)
        requeued: set[str] = set()
        try:
            for job in batch:
                newest = self._jobs.get(job.id)
                event = None if newest is None else due(newest, now)
                changed = None if event is None else transaction.try_apply(job.id, event)
                if changed is not None and changed.status is Status.IN_QUEUE:
                    requeued.add(job.endpoint)
        finally:
            await transaction.commit()
        for endpoint in requeued:
            with log_errors("dispatch", endpoint=endpoint):
                await self._takes.dispatch(endpoint)

    def _is_forgettable(self, ended: EndedJob) -> bool:
        """Whether the job is unchanged since it was read; it may have been retried."""
        job = self._jobs.index.get(ended.job_id)
        in_use = self._jobs.is_pending(ended.job_id) or ended.job_id in self._jobs.deliveries
        return not in_use and (job is None or job.ended_at == ended.ended_at)
