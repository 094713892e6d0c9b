"""Assigns jobs to workers: on submission to an open take, from the backlog, or with the reply to a report.

A take is answered after the leases of its jobs are committed. A job that does not reach its worker is released: it is
queued again, and the attempt does not count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import TypeVar

import msgspec

from runpod_worker.core.errors import BacklogFull, StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Failed, Released, Taken, apply
from runpod_worker.log import log
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Assigned, Poll, Polls, Submission, TakeRequest
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings

MAX_REMEMBERED = 10_000
"""Released takes to remember, so that a take that arrives after its release gets no jobs. Drops the oldest. As many
timings and progress numbers are kept; no rule uses timings."""

K = TypeVar("K")
V = TypeVar("V")


class ReleasedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a worker releases. `attempt` and `take` identify the assignment, if the worker sends them."""

    job_id: str = msgspec.field(name="id")
    attempt: int | None = None
    take: str = ""


class Takes:
    """Assigns jobs to workers."""

    def __init__(self, jobs: Jobs, settings: ServiceSettings) -> None:
        self.polls = Polls()
        self._jobs = jobs
        self._settings = settings
        self._released: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    async def add(self, job: Job, submission: Submission) -> None:
        """Add a new job. If a take is open, assign the job to it in the same commit.

        The first write of a sync job does not wait for the disk: its caller gets no reply before the job has ended, or
        before `JobQueue.flush`.

        Raises:
            BacklogFull: no take is open, and the endpoint has the maximum number of queued jobs.
            StoreUnavailable: the job was not written.
        """
        poll = self.polls.pop(job.endpoint)
        if poll is None and self._jobs.index.queue_length(job.endpoint) >= self._settings.max_backlog_jobs:
            raise BacklogFull
        transaction = Transaction(self._jobs)
        try:
            if poll is not None:
                job = apply(job, self._taken(poll.request))
            transaction.add(job, submission.body)
            await transaction.commit(durable=not job.sync)
        finally:
            if poll is not None:
                poll.resolve([Assigned(job, submission)] if transaction.committed else [])
        if poll is None:
            await self.dispatch(job.endpoint)  # a take may have arrived during the commit

    async def take(self, request: TakeRequest, timeout_s: float) -> list[Assigned]:
        """Return one to `request.max_jobs` jobs, or none after `timeout_s`.

        A take that is repeated with the same id gets the same jobs again, if the worker still holds any of them.
        """
        transaction = Transaction(self._jobs)
        assigned = self.assign(transaction, request)
        await transaction.commit(durable=False)
        if not assigned and not self._is_refused(request):
            assigned = await self.polls.wait(request.endpoint, timeout_s, request) or []
        return await self.load(assigned)

    def assign(self, transaction: Transaction, request: TakeRequest) -> list[Assigned]:
        """Decide which jobs the take gets now. After the commit, `load` adds their requests."""
        if self._is_refused(request):
            return []
        held = self._taken_under(request.endpoint, request.worker, (request.id,)) if request.id else []
        return [Assigned(job) for job in held or self._assign_next(transaction, request)]

    async def load(self, assigned: list[Assigned]) -> list[Assigned]:
        """Return the committed jobs with their requests, except jobs that the worker has released since."""
        loaded: list[Assigned] = []
        for each in assigned:
            try:
                job = await self._jobs.get_committed(each.job.id)
                request = each.request or await self._jobs.body("requests", each.job.id)
            except Exception as exc:  # the take gets its other jobs
                await self.set_aside(each.job, exc)
                continue
            if job is not None and request is not None and _same_assignment(job, each.job):
                loaded.append(Assigned(job, request))
        return [each for each in loaded if self._is_held(each.job)]

    async def set_aside(self, job: Job, error: Exception) -> None:
        """Fail a leased job that cannot be read. If it was the store that failed, leave it to the end of its lease."""
        log.error("job.unreadable", extra={"job": job.id}, exc_info=error)
        if job.lease is None or isinstance(error, StoreUnavailable):
            return
        text = f"the job cannot be read: {error}"
        transaction = Transaction(self._jobs)
        event = Failed(at=self._jobs.now(), worker=job.lease.worker, attempt=job.attempt, error=text)
        transaction.try_apply(job.id, event)
        with suppress(StoreUnavailable):  # then its lease ends, and the next take of it comes here again
            await transaction.commit()

    async def release_undelivered(self, request: TakeRequest, assigned: list[Assigned]) -> None:
        """Queue jobs again that did not reach their worker.

        Skips a job that another take has assigned meanwhile: the worker may have released it and taken it again, with
        the same attempt number.
        """
        await self._release(request.endpoint, request.worker, _released(each.job for each in assigned))

    async def release(
        self, endpoint: str, worker: str, take_ids: Collection[str], released: Iterable[ReleasedJob]
    ) -> int:
        """Release the jobs of the takes `take_ids`, and the jobs in `released`, for a worker that will not run them.

        Takes with these ids that are open, or arrive later, get no jobs. Returns the number of released jobs.
        """
        take_ids = {take_id for take_id in take_ids if take_id}
        for take_id in take_ids:
            remember(self._released, (endpoint, worker, take_id), None)
        self.polls.release(endpoint, worker, take_ids)
        taken = _released(self._taken_under(endpoint, worker, take_ids))
        return await self._release(endpoint, worker, [*taken, *released])  # a job that is named twice is released once

    async def dispatch(self, endpoint: str) -> None:
        """Assign queued jobs to open takes."""
        transaction = Transaction(self._jobs)
        answers: list[tuple[Poll, list[Assigned]]] = []
        try:
            while self._jobs.index.queue_length(endpoint) and (poll := self.polls.pop(endpoint)) is not None:
                assigned: list[Assigned] = []
                answers.append((poll, assigned))
                assigned += [Assigned(job) for job in self._assign_next(transaction, poll.request)]
            await transaction.commit(durable=False)
        finally:
            for poll, assigned in answers:
                poll.resolve(assigned if transaction.committed else [])

    def _assign_next(self, transaction: Transaction, request: TakeRequest) -> list[Job]:
        taken = self._taken(request)
        head = self._jobs.index.head(request.endpoint, request.max_jobs)
        return [transaction.apply(job.id, taken) for job in head]

    def _taken(self, request: TakeRequest) -> Taken:
        return Taken(
            at=self._jobs.now(),
            worker=request.worker,
            lease_s=self._settings.lease_s,
            take=request.id,
            confirms=request.confirms,
            gpu=request.gpu,
        )

    def _taken_under(self, endpoint: str, worker: str, take_ids: Collection[str]) -> list[Job]:
        """The jobs that the worker holds from these takes."""
        return [
            job
            for job in self._jobs.index.leased(worker)
            if job.lease is not None and job.lease.take in take_ids and job.endpoint == endpoint
        ]

    async def _release(self, endpoint: str, worker: str, released: Iterable[ReleasedJob]) -> int:
        transaction = Transaction(self._jobs)
        now, count = self._jobs.now(), 0
        for named in released:
            job = self._jobs.get(named.job_id)
            if job is not None and job.endpoint == endpoint:
                event = Released(at=now, worker=worker, attempt=named.attempt, take=named.take)
                count += transaction.try_apply(named.job_id, event) is not None
        await transaction.commit()
        if count:
            await self.dispatch(endpoint)
        return count

    def _is_held(self, assigned: Job) -> bool:
        job = self._jobs.get(assigned.id)
        if job is None or job.lease is None or not _same_assignment(job, assigned):
            return False
        return not self._is_released(job.endpoint, job.lease.worker, job.lease.take)

    def _is_refused(self, request: TakeRequest) -> bool:
        """Whether the take gets no jobs, because the service drains or the worker has released it."""
        return self.polls.closed or self._is_released(request.endpoint, request.worker, request.id)

    def _is_released(self, endpoint: str, worker: str, take_id: str) -> bool:
        return (endpoint, worker, take_id) in self._released


def remember(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Store the value, and drop the oldest above `MAX_REMEMBERED`."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)


def _released(jobs: Iterable[Job]) -> list[ReleasedJob]:
    return [ReleasedJob(job_id=job.id, attempt=job.attempt, take=job.lease.take) for job in jobs if job.lease]


def _same_assignment(job: Job, other: Job) -> bool:
    if job.lease is None or other.lease is None or job.attempt != other.attempt:
        return False
    return (job.lease.worker, job.lease.take) == (other.lease.worker, other.lease.take)
