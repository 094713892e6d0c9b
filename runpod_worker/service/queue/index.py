"""All jobs in memory, in the orders that the rules need. Every read of a job in memory uses it.

The index decides no status; it sorts the results of `core.lifecycle.apply`. Each operation costs O(log n).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from runpod_worker.core.job import Job, Status
from runpod_worker.service.journal.port import TOTALS, Snapshot, Total, Totals
from runpod_worker.service.queue.heap import LazyHeap

Place = tuple[bool, float, int]
"""A job's place in the queue: by priority, then by the time of submission, then in the order of adding."""


class Counts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The number of jobs of an endpoint, as /health names them. The first two are current, the others are totals."""

    in_queue: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0


class _Entry(NamedTuple):
    job: Job
    seq: int
    due_at: float | None


class JobIndex:
    """The newest version of each job: by id, by place in the queue, by due time, by worker."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queues: dict[str, LazyHeap[Place]] = {}
        self._in_queue: Counter[str] = Counter()
        self._in_progress: Counter[str] = Counter()
        self._totals = Totals(snapshot.totals)
        self._leases: dict[str, dict[str, None]] = {}
        self._due: LazyHeap[float] = LazyHeap(self._due_at)
        self._last_seq = snapshot.last_seq
        for stored in snapshot.jobs:
            self.add(stored.job, stored.seq)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def add(self, job: Job, seq: int | None = None) -> int:
        """Add a job and return its number in the order of adding; a job from the journal has its number, `seq`.

        Raises:
            ValueError: the index has a job with this id.
        """
        if job.id in self._entries:
            raise ValueError(f"job {job.id!r} exists already")
        if seq is None:
            seq = self._last_seq = self._last_seq + 1
        self._link(job, seq, None)
        return seq

    def put(self, job: Job) -> None:
        """Replace the job with the same id."""
        old = self._entries[job.id]
        self._unlink(old.job)
        self._link(job, old.seq, old.due_at)

    def drop(self, job_id: str) -> None:
        """Remove the job, if the index has it."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._unlink(entry.job)

    def get(self, job_id: str) -> Job | None:
        """Return the job, or None."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.job

    def seq(self, job_id: str) -> int | None:
        """Return the job's number in the order of adding, or None."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.seq

    def count(self, endpoint: str, total: Total) -> None:
        """Add one to a total of the endpoint."""
        self._totals[endpoint, total] += 1

    def counts(self, endpoint: str) -> Counts:
        """Return the numbers of the endpoint's jobs."""
        totals = {total: self._totals[endpoint, total] for total in TOTALS}
        return Counts(in_queue=self.queue_length(endpoint), in_progress=self._in_progress[endpoint], **totals)

    def queue_length(self, endpoint: str) -> int:
        """Return the number of jobs of the endpoint that are IN_QUEUE."""
        return self._in_queue[endpoint]

    def head(self, endpoint: str, limit: int) -> list[Job]:
        """Return the next jobs that are IN_QUEUE, at most `limit`."""
        queue = self._queues.get(endpoint)
        return [] if queue is None else [self._entries[job_id].job for job_id in queue.first_ids(limit)]

    def all_leased(self) -> list[Job]:
        """Return the jobs on which any worker holds a lease."""
        return [job for worker in self._leases for job in self.leased(worker)]

    def leased(self, worker: str) -> list[Job]:
        """Return the jobs on which this worker holds a lease."""
        return [self._entries[job_id].job for job_id in self._leases.get(worker, ())]

    def overdue(self, now: float) -> list[Job]:
        """Return the jobs whose `due_at` is not after `now`, earliest first."""
        return [self._entries[job_id].job for job_id in self._due.first_ids(len(self._entries), up_to=now)]

    def next_due(self) -> float | None:
        """Return the earliest `due_at` of all jobs."""
        first = self._due.first()
        return None if first is None else first[0]

    def _place(self, job_id: str) -> Place | None:
        entry = self._entries.get(job_id)
        if entry is None or entry.job.status is not Status.IN_QUEUE:
            return None
        return (entry.job.policy.low_priority, entry.job.created_at, entry.seq)

    def _due_at(self, job_id: str) -> float | None:
        entry = self._entries.get(job_id)
        return None if entry is None else entry.due_at

    def _link(self, job: Job, seq: int, due_before: float | None) -> None:
        due_at = job.due_at
        self._entries[job.id] = _Entry(job, seq, due_at)
        if job.status is Status.IN_QUEUE:
            self._in_queue[job.endpoint] += 1
            queue = self._queues.get(job.endpoint)
            if queue is None:
                queue = self._queues[job.endpoint] = LazyHeap(self._place)
            queue.push(job.id, (job.policy.low_priority, job.created_at, seq), self._in_queue[job.endpoint])
        elif job.status is Status.IN_PROGRESS:
            self._in_progress[job.endpoint] += 1
        if job.lease is not None:
            self._leases.setdefault(job.lease.worker, {})[job.id] = None
        if due_at is not None and (due_before is None or due_at < due_before):
            self._due.push(job.id, due_at, len(self._entries))

    def _unlink(self, job: Job) -> None:
        if job.status is Status.IN_QUEUE:
            self._in_queue[job.endpoint] -= 1
        elif job.status is Status.IN_PROGRESS:
            self._in_progress[job.endpoint] -= 1
        if job.lease is not None:
            held = self._leases[job.lease.worker]
            del held[job.id]
            if not held:
                del self._leases[job.lease.worker]
