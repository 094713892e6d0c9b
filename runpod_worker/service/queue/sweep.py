"""Time speaks: leases that lapse, time-outs, ttl, retention. One task sleeps exactly until the next thing is due."""

from __future__ import annotations

from dataclasses import dataclass

from runpod_worker.core.errors import ServiceRefusal
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import ExecutionTimedOut, LeaseRenewed, due
from runpod_worker.log import log
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.waiters import together
from runpod_worker.service.queue.workers import Workers
from runpod_worker.service.settings import ServiceSettings

BATCH = 500
"""So many jobs are changed in one commit."""

RETRY_S = 1.0
"""The pause before the next pass when the store could not write, or while the grace after a start lasts."""


@dataclass(slots=True)
class Sweep:
    """The service's pass over everything that is due."""

    jobs: Jobs
    takes: Takes
    workers: Workers
    settings: ServiceSettings
    started_at: float = 0.0
    forget_at: float = 0.0

    async def run(self) -> None:
        """Sweep for ever; `start` comes first."""
        while True:
            try:
                await self.once()
            except ServiceRefusal:
                log.exception("sweep.failed")
                self.jobs.alarm.arm(self.jobs.now() + RETRY_S)
            await self.jobs.alarm.wait()

    async def start(self) -> None:
        """Renew every lease that is near its end: nobody was here to hear the beats while the service was down."""
        now = self.started_at = self.jobs.now()
        self.forget_at = now
        for job in self.jobs.store.overdue(now + self.settings.lease_s):
            if job.lease is not None:
                beat = LeaseRenewed(at=now, worker=job.lease.worker, lease_s=self.settings.lease_s)
                await self.jobs.try_change(job.id, beat)

    async def once(self) -> None:
        """Deal with everything that is due now, and arm the alarm for the next thing."""
        now = self.jobs.now()
        found = self.jobs.store.overdue(now)
        graced = [job for job in found if self._graced(job, now)]
        await self._apply([job for job in found if not self._graced(job, now)], now)
        if now >= self.forget_at:
            await self._forget(now)
        self.jobs.alarm.arm(self.forget_at)
        self.jobs.alarm.arm(now + RETRY_S if graced else self.jobs.store.next_due())

    def _graced(self, job: Job, now: float) -> bool:
        """Whether the attempt ran while the service was down: its result may be on the way, for one more lease."""
        started_before = job.taken_at is not None and job.taken_at < self.started_at
        in_grace = now < self.started_at + self.settings.lease_s
        return started_before and in_grace and isinstance(due(job, now), ExecutionTimedOut)

    async def _apply(self, found: list[Job], now: float) -> None:
        for start in range(0, len(found), BATCH):
            steps = [(job, due(job, now)) for job in found[start : start + BATCH]]
            changed = await together([self.jobs.try_change(job.id, event) for job, event in steps if event])
            requeued = {job.endpoint for job in changed if job is not None and job.status is Status.IN_QUEUE}
            for endpoint in requeued:
                await self.takes.dispatch(endpoint)

    async def _forget(self, now: float) -> None:
        self.forget_at = now + self.settings.forget_every_s
        self.workers.prune(now - self.settings.worker_retention_s)
        await self.jobs.store.forget(now - self.settings.retention_s, now - self.settings.sync_retention_s)
