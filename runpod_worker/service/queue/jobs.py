"""The jobs in memory, their journal, and the requests that wait for them.

Rules read the newest version of a job immediately. Callers only see committed versions, from `get_committed` and from
the waiters, which are notified after the commit.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job, Lease
from runpod_worker.core.lifecycle import Event, Taken, WorkerEvent
from runpod_worker.log import log_errors
from runpod_worker.service.journal.port import (
    Body,
    ChunkRecord,
    Delivery,
    EndedJob,
    ForgetRecord,
    JobRecord,
    Journal,
    Record,
    Written,
)
from runpod_worker.service.queue.bodies import BodyCache
from runpod_worker.service.queue.deliveries import Deliveries
from runpod_worker.service.queue.index import JobIndex
from runpod_worker.service.queue.streams import ChunkLog, ChunkLogs
from runpod_worker.service.queue.waiters import DeadlineTimer, Waiters
from runpod_worker.service.queue.workers import Workers

MAX_RECENT_JOBS = 10_000
"""Ended jobs of /run that stay in memory, and as many of /runsync. Older jobs are read from the journal."""


class Ended(NamedTuple):
    """A job that has ended, and its output."""

    job: Job
    output: bytes | None


class Step(NamedTuple):
    """A record and its origin: the earlier version of the job and the event, or the log of the chunks."""

    record: Record
    old: Job | None = None
    event: Event | None = None
    log: ChunkLog | None = None


class Jobs:
    """All jobs of the service. `transaction.Transaction` changes them.

    Args:
        journal: makes them durable; its unfinished jobs are loaded here.
        now: the clock, in seconds since the epoch.
        max_recent: number of ended jobs that stay in memory (at least 1).
    """

    def __init__(self, journal: Journal, now: Callable[[], float], *, max_recent: int = MAX_RECENT_JOBS) -> None:
        snapshot = journal.load(self._read_again)
        self.journal = journal
        self.now = now
        self.index = JobIndex(snapshot)
        self.deliveries = Deliveries(snapshot.deliveries)
        self.bodies = BodyCache(journal)
        self.logs = ChunkLogs(journal)
        self.workers = Workers(self.index, now)
        self.timer = DeadlineTimer(now)
        self.ended: Waiters[Ended, None] = Waiters()
        self.moved: Waiters[bool, None] = Waiters()
        """Notified when a job has a new chunk, and when it ends."""
        self._max_recent = max(1, max_recent)
        self._recent: dict[bool, OrderedDict[str, None]] = {False: OrderedDict(), True: OrderedDict()}
        """The ended jobs in memory, by `sync`, oldest first."""
        self._pending: dict[str, Written] = {}
        """The latest running write of each job."""

    def get(self, job_id: str) -> Job | None:
        """Return the newest version of the job, even if it is not committed. For rules, not for callers."""
        job = self.index.get(job_id)
        if job is not None or job_id in self._pending:  # a job that is being deleted has left the index
            return job
        stored = self.journal.read(job_id)
        if stored is None:
            return None
        self.index.add(stored.job, stored.seq)
        self._remember(stored.job)
        return stored.job

    def is_pending(self, job_id: str) -> bool:
        """Whether a write of the job is running."""
        return job_id in self._pending

    async def wait_committed(self, job_id: str) -> None:
        """Wait until no write of the job is running."""
        while (written := self._pending.get(job_id)) is not None:
            if written.done():  # its transaction resumes in this turn of the loop
                await asyncio.sleep(0)
            with suppress(StoreUnavailable):
                await written

    async def get_committed(self, job_id: str) -> Job | None:
        """Return the committed job, for callers. Waits for a running write."""
        await self.wait_committed(job_id)
        return self.get(job_id)

    async def body(self, kind: Body, job_id: str) -> bytes | None:
        """Return the committed request or output of the job as JSON, or None."""
        await self.wait_committed(job_id)
        return await self.bodies.read((kind, job_id))

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        """Like `Journal.find_ended`, but also works with a journal that keeps nothing."""
        if self.journal.keeps:
            return await self.journal.find_ended(before, sync=sync, limit=limit)
        ended: list[EndedJob] = []
        for job_id in self._recent[sync]:
            job, seq = self.index.get(job_id), self.index.seq(job_id)
            if job is None or seq is None or job.ended_at is None or job_id in self.deliveries:
                continue
            if job.ended_at >= before or len(ended) == limit:
                break
            ended.append(EndedJob(seq, job_id, job.ended_at))
        return ended

    def track(self, written: Written, job_ids: Iterable[str]) -> None:
        """Record that a write is running."""
        self._pending.update(dict.fromkeys(job_ids, written))

    def untrack(self, written: Written, job_ids: Iterable[str]) -> None:
        """Record that the write has ended."""
        for job_id in job_ids:
            if self._pending.get(job_id) is written:
                del self._pending[job_id]

    def on_committed(self, step: Step) -> None:
        """Publish a committed record, and notify the requests that wait for it."""
        record = step.record
        match record:
            case JobRecord():
                self._on_job_committed(record, step.old, step.event)
            case ChunkRecord() if step.log is not None:
                self.logs.on_written(step.log, record.start + len(record.chunks))
                self.moved.notify(record.job_id, True)
            case ForgetRecord():
                self.bodies.drop(record.job_id)
                for recent in self._recent.values():
                    recent.pop(record.job_id, None)

    def _on_job_committed(self, record: JobRecord, old: Job | None, event: Event | None) -> None:
        job = record.job
        self._cache_bodies(record)
        if record.adds_to is not None:
            self.index.count(job.endpoint, record.adds_to)
        if record.drops_delivery:
            self.deliveries.drop(job.id)
        if record.delivery is not None:
            self.deliveries.put(record.delivery)
        if job.final and (old is None or not old.final):
            self.ended.notify(job.id, Ended(job, record.output))
            self.moved.notify(job.id, True)
            self._remember(job)
        self.timer.arm(job.due_at)
        if isinstance(event, Taken):
            self.workers.drop_stop(job.endpoint, event.worker, job.id)
        elif old is not None and (lease := _stopped_lease(old, job, event)) is not None:
            self.workers.stop(job.endpoint, lease.worker, job.id, old.attempt)

    def _cache_bodies(self, record: JobRecord) -> None:
        if record.request is not None:
            self.bodies.put(("requests", record.job_id), record.request)
        if record.request is not None or record.output is not None or record.drops_output:
            self.bodies.put(("outputs", record.job_id), record.output)

    def _read_again(self, job_ids: Collection[str]) -> None:
        """Replace these jobs in memory by those in the journal, because a write failed or may have failed."""
        for job_id in job_ids:
            with log_errors("read again", job=job_id):
                self._read_one_again(job_id)

    def _read_one_again(self, job_id: str) -> None:
        self.logs.drop(job_id)
        self.bodies.drop(job_id)
        self.index.drop(job_id)
        stored = self.journal.read(job_id)
        self._restore_delivery(job_id, stored.delivery if stored else None)
        if stored is None:
            return
        self.index.add(stored.job, stored.seq)
        self.timer.arm(stored.job.due_at)
        if stored.job.final:
            self._remember(stored.job)
            self.ended.notify(job_id, None)

    def _restore_delivery(self, job_id: str, delivery: Delivery | None) -> None:
        if self.deliveries.get(job_id) == delivery:
            return  # keep its hold: with a full disk the webhook must not be sent over and over
        self.deliveries.drop(job_id)
        if delivery is not None:
            self.deliveries.put(delivery)

    def _remember(self, ended: Job) -> None:
        """Add the job to the recent jobs, and drop the oldest of them."""
        recent = self._recent[ended.sync]
        recent[ended.id] = None
        recent.move_to_end(ended.id)
        while self.journal.keeps and len(recent) > self._max_recent:
            oldest, _ = recent.popitem(last=False)
            if self.is_pending(oldest):
                recent[oldest] = None  # its write is running: keep it until the next call
                return
            job = self.index.get(oldest)
            if job is not None and job.final:
                self.index.drop(oldest)


def _stopped_lease(old: Job, new: Job, event: Event | None) -> Lease | None:
    """Return the lease whose worker must stop the job, because it lost the job or a stop began."""
    if isinstance(event, WorkerEvent) or (new.lease is not None and new.stop is old.stop):
        return None
    return old.lease
