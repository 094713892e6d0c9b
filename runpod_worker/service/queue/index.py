"""What every store keeps in memory about its jobs, so that rules are decided without a round trip.

Nothing here decides a status: the index only sorts what `core.lifecycle.apply` made. Each operation costs O(log n).
Heaps are cleaned lazily: an entry that no longer tells the truth is skipped when it comes to the top.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from runpod_worker.core.job import Job, Status
from runpod_worker.service.journal.port import Counts, Delivery


class Tally(NamedTuple):
    """How far the three counters of an endpoint that only grow were moved by one write."""

    completed: int = 0
    failed: int = 0
    retried: int = 0

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """The sum, or with `sign=-1` the difference."""
        return Tally(
            self.completed + sign * other.completed,
            self.failed + sign * other.failed,
            self.retried + sign * other.retried,
        )


NO_STEP = Tally()


def tally(old: Job | None, new: Job) -> Tally:
    """What the step from `old` to `new` adds to the counters of the endpoint."""
    ended = new.status if old is None or old.status is not new.status else None
    if old is not None and ended is not Status.COMPLETED and ended is not Status.FAILED and old.retries == new.retries:
        return NO_STEP
    return Tally(
        completed=int(ended is Status.COMPLETED),
        failed=int(ended is Status.FAILED),
        retried=new.retries - (old.retries if old else 0),
    )


def first_delivery(job: Job) -> Delivery:
    """The row that a final job with a webhook owes, due at once."""
    if job.webhook is None or job.ended_at is None:
        raise ValueError(f"job {job.id!r} is {job.status} with webhook {job.webhook!r}: it owes nothing")
    return Delivery(job_id=job.id, url=job.webhook, tries=0, next_at=job.ended_at)


def postponed(delivery: Delivery, next_at: float) -> Delivery:
    """The row after one more try that failed."""
    return replace(delivery, tries=delivery.tries + 1, next_at=next_at)


def check_gap(job_id: str, index: int, have: int) -> None:
    """Refuse chunks that do not follow on what is there."""
    if not 0 <= index <= have:
        raise ValueError(f"index: chunk {index} of job {job_id!r} does not follow on the {have} chunks it has")


@dataclass(slots=True)
class _Entry:
    job: Job
    seq: int
    mark: int = 0
    """Names the one valid place of the job in its endpoint's queue; 0 when it is not queued."""
    alarm: float | None = None
    """The earliest time under which the job stands in the heap of due times."""


@dataclass(slots=True)
class _Endpoint:
    queue: list[tuple[bool, float, int, int, str]] = field(default_factory=list)
    in_queue: int = 0
    in_progress: int = 0
    total: Tally = field(default_factory=Tally)


class JobIndex:
    """The newest version of each job it was given, by id, by place in the queue, by due time, by worker."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._endpoints: dict[str, _Endpoint] = {}
        self._leases: dict[str, dict[str, _Entry]] = {}
        self._alarms: list[tuple[float, int, str]] = []
        self._marks = itertools.count(1)
        self._last_seq = 0

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: Job, seq: int | None = None) -> int:
        """Take in a job and return its number in the order of adding; `seq` is the number it had before a restart."""
        if job.id in self._entries:
            raise ValueError(f"job {job.id!r} exists already")
        seq = self._last_seq + 1 if seq is None else seq
        self._last_seq = max(self._last_seq, seq)
        entry = self._entries[job.id] = _Entry(job, seq)
        self._link(entry)
        return seq

    def resume(self, last_seq: int) -> None:
        """Number new jobs from after `last_seq` on."""
        self._last_seq = max(self._last_seq, last_seq)

    def put(self, job: Job) -> None:
        """Replace the job of the same id, whatever its version."""
        entry = self._entries[job.id]
        self._unlink(entry)
        entry.job = job
        self._link(entry)

    def drop(self, job_id: str) -> None:
        """Forget the job, if it is here."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._unlink(entry)

    def get(self, job_id: str) -> Job | None:
        """The job, None when it is not here."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.job

    def seq(self, job_id: str) -> int | None:
        """The job's number in the order of adding."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.seq

    def count(self, endpoint: str, step: Tally, sign: int = 1) -> None:
        """Move the counters of the endpoint."""
        place = self._place(endpoint)
        if step is not NO_STEP:
            place.total = place.total.plus(step, sign)

    def counts(self, endpoint: str) -> Counts:
        """As `Store.counts`."""
        place = self._endpoints.get(endpoint)
        if place is None:
            return Counts()
        return Counts(in_queue=place.in_queue, in_progress=place.in_progress, **place.total._asdict())

    def knows(self, endpoint: str) -> bool:
        """Whether the endpoint has, or ever had, a job."""
        return endpoint in self._endpoints

    def endpoints(self) -> set[str]:
        """As `Store.endpoints`."""
        return set(self._endpoints)

    def head(self, endpoint: str, limit: int) -> list[Job]:
        """As `Store.head`."""
        place = self._endpoints.get(endpoint)
        if place is None or limit <= 0:
            return []
        heap, taken, jobs = place.queue, [], list[Job]()
        while heap and len(jobs) < limit:
            entry = self._entries.get(heap[0][4])
            if entry is None or entry.mark != heap[0][3]:
                heapq.heappop(heap)
                continue
            jobs.append(entry.job)
            if len(jobs) < limit:
                taken.append(heapq.heappop(heap))
        for item in taken:
            heapq.heappush(heap, item)
        return jobs

    def queued(self, endpoint: str) -> list[Job]:
        """As `Store.queued`."""
        return self.head(endpoint, self.counts(endpoint).in_queue)

    def leased(self, worker: str) -> list[Job]:
        """As `Store.leased`."""
        return [entry.job for entry in self._leases.get(worker, {}).values()]

    def overdue(self, now: float) -> list[Job]:
        """As `Store.overdue`."""
        taken: list[tuple[float, int, str]] = []
        jobs: list[Job] = []
        while (alarm := self._next_alarm()) is not None and alarm[0] <= now:
            taken.append(heapq.heappop(self._alarms))
            jobs.append(self._entries[alarm[2]].job)
        for item in taken:
            heapq.heappush(self._alarms, item)
        return jobs

    def next_due(self) -> float | None:
        """As `Store.next_due`."""
        alarm = self._next_alarm()
        return None if alarm is None else alarm[0]

    def _next_alarm(self) -> tuple[float, int, str] | None:
        """The top of the heap of due times, once it tells the truth.

        Beats only move a lease on and cost nothing here: the alarm is set to its new time when the old one rings.
        """
        while self._alarms:
            at, seq, job_id = self._alarms[0]
            entry = self._entries.get(job_id)
            if entry is None or entry.seq != seq or entry.alarm != at:
                heapq.heappop(self._alarms)
            elif (due := entry.job.due_at) is None:
                entry.alarm = None
                heapq.heappop(self._alarms)
            elif due != at:
                entry.alarm = due
                heapq.heapreplace(self._alarms, (due, seq, job_id))
            else:
                return self._alarms[0]
        return None

    def _place(self, endpoint: str) -> _Endpoint:
        place = self._endpoints.get(endpoint)
        if place is None:
            place = self._endpoints[endpoint] = _Endpoint()
        return place

    def _link(self, entry: _Entry) -> None:
        job, place = entry.job, self._place(entry.job.endpoint)
        if job.status is Status.IN_QUEUE:
            place.in_queue += 1
            entry.mark = next(self._marks)
            self._enqueue(place, (job.policy.low_priority, job.created_at, entry.seq, entry.mark, job.id))
        elif job.status is Status.IN_PROGRESS:
            place.in_progress += 1
        if job.lease is not None:
            self._leases.setdefault(job.lease.worker, {})[job.id] = entry
        due = job.due_at
        if due is not None and (entry.alarm is None or due < entry.alarm):
            entry.alarm = due
            heapq.heappush(self._alarms, (due, entry.seq, job.id))
            self._compact_alarms()

    def _unlink(self, entry: _Entry) -> None:
        job, place = entry.job, self._place(entry.job.endpoint)
        if job.status is Status.IN_QUEUE:
            place.in_queue -= 1
            entry.mark = 0
        elif job.status is Status.IN_PROGRESS:
            place.in_progress -= 1
        if job.lease is not None:
            held = self._leases[job.lease.worker]
            del held[job.id]
            if not held:
                del self._leases[job.lease.worker]

    def _enqueue(self, place: _Endpoint, item: tuple[bool, float, int, int, str]) -> None:
        if len(place.queue) > 2 * place.in_queue + 64:  # cancelled jobs far from the top would stay for ever
            place.queue = [old for old in place.queue if self._stands(old)]
            heapq.heapify(place.queue)
        heapq.heappush(place.queue, item)

    def _stands(self, item: tuple[bool, float, int, int, str]) -> bool:
        entry = self._entries.get(item[4])
        return entry is not None and entry.mark == item[3]

    def _compact_alarms(self) -> None:
        if len(self._alarms) > 2 * len(self._entries) + 64:
            self._alarms = [(at, seq, job_id) for at, seq, job_id in self._alarms if self._rings(at, seq, job_id)]
            heapq.heapify(self._alarms)

    def _rings(self, at: float, seq: int, job_id: str) -> bool:
        entry = self._entries.get(job_id)
        return entry is not None and entry.seq == seq and entry.alarm == at and not entry.job.final


class Outbox:
    """The webhooks still owed, by job and by the time at which each is next handed out."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Delivery, float]] = {}
        self._times: list[tuple[float, str]] = []

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._rows

    def get(self, job_id: str) -> Delivery | None:
        """The row of this job."""
        row = self._rows.get(job_id)
        return None if row is None else row[0]

    def put(self, delivery: Delivery) -> None:
        """Add or replace the row of the job."""
        self._put(delivery, delivery.next_at)

    def drop(self, job_id: str) -> None:
        """Remove the row of the job, if there is one."""
        self._rows.pop(job_id, None)

    def take(self, now: float, limit: int, hold_s: float) -> list[Delivery]:
        """As `Store.deliveries`."""
        taken: list[Delivery] = []
        while len(taken) < limit and (top := self._top()) is not None and top[0] <= now:
            delivery, _ = self._rows[top[1]]
            taken.append(delivery)
            self._put(delivery, max(math.nextafter(now, math.inf), now + hold_s))
        return taken

    def next_at(self) -> float | None:
        """As `Store.next_delivery`."""
        top = self._top()
        return None if top is None else top[0]

    def _put(self, delivery: Delivery, at: float) -> None:
        self._rows[delivery.job_id] = (delivery, at)
        heapq.heappush(self._times, (at, delivery.job_id))

    def _top(self) -> tuple[float, str] | None:
        while self._times:
            at, job_id = self._times[0]
            row = self._rows.get(job_id)
            if row is not None and row[1] == at:
                return self._times[0]
            heapq.heappop(self._times)
        return None
