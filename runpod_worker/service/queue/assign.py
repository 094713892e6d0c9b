"""How a job gets to a worker: at birth when one waits, from the backlog, or with the reply to a result.

A job is handed over only once its lease is written. One that cannot reach its worker goes back to the queue, and no
attempt is spent on it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from runpod_worker.core.errors import BacklogFull
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Released, Taken, apply
from runpod_worker.service.http import wire
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Ask, Handed, Poll, Polls
from runpod_worker.service.queue.waiters import together
from runpod_worker.service.queue.workers import Workers
from runpod_worker.service.settings import ServiceSettings

RETURNED_TAKES = 10_000
"""So many names of returned hand-overs are remembered, so that a take that arrives late gets nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedJob:
    """A job that a worker names to give it back."""

    job_id: str
    attempt: int | None
    take: str = ""


class Takes:
    """Hands jobs to workers."""

    def __init__(self, jobs: Jobs, workers: Workers, settings: ServiceSettings) -> None:
        self.polls = Polls()
        self._jobs = jobs
        self._store = jobs.store
        self._now = jobs.now
        self._workers = workers
        self._settings = settings
        self._returned: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._closed = False

    async def add(self, job: Job, request: wire.Submission) -> None:
        """Keep a new job; if a worker waits for one it is taken at birth, and one write does for both.

        The caller of a sync job hears nothing before it has ended, or before `Service.secure`: its first write need not
        wait for the disk.

        Raises:
            BacklogFull: nobody waits and the endpoint has its limit of jobs.
            StoreUnavailable: nothing was written.
        """
        poll = self.polls.claim(job.endpoint)
        if poll is not None:
            await self._add_taken(job, request, poll)
            return
        if self._store.counts(job.endpoint).in_queue >= self._settings.max_backlog_jobs:
            raise BacklogFull
        await self._store.add(job, request.body, durable=not job.sync)
        self._jobs.alarm.arm(job.due_at)
        if self.polls.waiting(job.endpoint):
            await self.dispatch(job.endpoint)

    async def _add_taken(self, job: Job, request: wire.Submission, poll: Poll) -> None:
        taken = apply(job, self._event(poll.ask))
        self._workers.took(taken.endpoint, poll.ask.worker, taken.id)
        try:
            await self._store.add(taken, request.body, durable=not job.sync)
        except BaseException:
            self.polls.unclaim(poll)
            raise
        self._jobs.alarm.arm(taken.due_at)
        poll.give([self._handed(taken, request, poll.ask)])

    async def take(self, ask: Ask, hold_s: float) -> list[Handed]:
        """At least one job and at most `ask.limit`, waiting up to `hold_s` for the first; empty when none came.

        A take whose name was used before gets the same jobs again, as far as the worker still holds them.
        """
        if self._closed or self._is_returned(ask):
            return []
        handed = await self._again(ask) or await self._grab(ask)
        if not handed:
            handed = await self.polls.wait(ask, hold_s)
        if handed and self._is_returned(ask):
            await self.put_back(ask, handed)
            return []
        return handed

    async def put_back(self, ask: Ask, handed: list[Handed]) -> None:
        """These jobs did not reach their worker: back to the queue with them.

        Only as far as they are still handed over under this name: the worker may have returned them itself meanwhile,
        and got them again under another name, with the same attempt number.
        """
        named = [ReturnedJob(job_id=one.job.id, attempt=one.job.attempt, take=ask.take) for one in handed]
        await self._give_back(ask.endpoint, ask.worker, named)

    async def give_back(self, endpoint: str, worker: str, takes: set[str], named: list[ReturnedJob]) -> int:
        """A worker returns jobs: what was handed over under the names `takes`, and the jobs it names. The number of
        jobs that went back."""
        takes = {take for take in takes if take}
        self._remember(endpoint, worker, takes)
        self.polls.drop(endpoint, worker, takes)
        unseen = [
            ReturnedJob(job_id=job.id, attempt=job.attempt, take=job.lease.take)
            for job in self._store.leased(worker)
            if job.lease and job.lease.take in takes and job.endpoint == endpoint
        ]
        known = {one.job_id for one in unseen}
        return await self._give_back(endpoint, worker, unseen + [one for one in named if one.job_id not in known])

    async def dispatch(self, endpoint: str) -> None:
        """Hand what is queued to the workers that wait."""
        while self._store.head(endpoint, 1):
            poll = self.polls.claim(endpoint)
            if poll is None:
                return
            try:
                handed = await self._grab(poll.ask)
            except BaseException:
                self.polls.unclaim(poll)
                raise
            if handed:
                poll.give(handed)
            else:
                self.polls.unclaim(poll)

    def close(self) -> None:
        """Hand over nothing more; every waiting worker is answered."""
        self._closed = True
        self.polls.silence()

    async def _grab(self, ask: Ask) -> list[Handed]:
        while found := self._store.head(ask.endpoint, ask.limit):
            event = self._event(ask)
            taken = [apply(job, event) for job in found]
            won = await together([self._store.swap(old, new) for old, new in zip(found, taken, strict=True)])
            mine = [job for job, got in zip(taken, won, strict=True) if got]
            for job in mine:
                self._jobs.alarm.arm(job.due_at)
                self._workers.took(ask.endpoint, ask.worker, job.id)
            if mine:
                return await self._read(mine, ask)
        return []

    async def _again(self, ask: Ask) -> list[Handed]:
        if not ask.take:
            return []
        held = [
            job
            for job in self._store.leased(ask.worker)
            if job.lease and job.lease.take == ask.take and job.endpoint == ask.endpoint
        ]
        return await self._read(held, ask)

    async def _read(self, jobs: list[Job], ask: Ask) -> list[Handed]:
        bodies = await together([self._store.request(job.id) for job in jobs])
        return [
            self._handed(job, wire.stored_request(body), ask)
            for job, body in zip(jobs, bodies, strict=True)
            if body is not None
        ]

    def _handed(self, job: Job, request: wire.Submission | wire.SubmitBody, ask: Ask) -> Handed:
        return Handed(job, wire.assignment(job, request, now=self._now(), counted=ask.counted))

    def _event(self, ask: Ask) -> Taken:
        return Taken(
            at=self._now(),
            worker=ask.worker,
            lease_s=self._settings.lease_s,
            take=ask.take,
            confirms=ask.confirms,
            gpu=ask.gpu,
        )

    async def _give_back(self, endpoint: str, worker: str, named: list[ReturnedJob]) -> int:
        mine = [one for one in named if self._is_of(one.job_id, endpoint)]
        now = self._now()
        events = [Released(at=now, worker=worker, attempt=one.attempt, take=one.take) for one in mine]
        changed = await together(
            [self._jobs.try_change(one.job_id, event) for one, event in zip(mine, events, strict=True)]
        )
        back = [job for job in changed if job is not None]
        if back:
            await self.dispatch(endpoint)
        return len(back)

    def _is_of(self, job_id: str, endpoint: str) -> bool:
        job = self._store.get(job_id)
        return job is not None and job.endpoint == endpoint

    def _is_returned(self, ask: Ask) -> bool:
        return bool(ask.take) and (ask.endpoint, ask.worker, ask.take) in self._returned

    def _remember(self, endpoint: str, worker: str, takes: set[str]) -> None:
        for take in takes:
            self._returned[endpoint, worker, take] = None
        while len(self._returned) > RETURNED_TAKES:
            self._returned.popitem(last=False)
