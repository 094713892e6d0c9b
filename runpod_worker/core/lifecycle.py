"""Every rule about a job's status lives in this file.

1. `TRANSITIONS` says which event leads from which status to which; `apply` adds the few guards that a table
   cannot say (who holds the lease, how many attempts are left). Nothing else in the project decides a status.
2. Nothing here does I/O or reads a clock: each event carries the time `at` it happened, in seconds since the epoch.

A job is IN_PROGRESS exactly while a worker holds a lease on it. A final status has no way out except `Retried`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter

from runpod_worker.core.errors import IllegalTransition, StaleAttempt

MAX_ATTEMPTS = 2
"""A lost job is handed out once more, then it fails: what the platform does (protocol B.9)."""

LEASE_S = 40.0
"""How long a silent worker keeps a job: what was measured on the platform (protocol A.3, B.9)."""

EXECUTION_TIMEOUT_MS = 600_000
TTL_MS = 86_400_000


class Status(StrEnum):
    """The platform's words for where a job is."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class StopReason(StrEnum):
    """Why a running job is being stopped; decides its final status."""

    CANCELLED = "cancelled"
    EXECUTION_TIMEOUT = "executionTimeout exceeded"
    TTL = "ttl exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the caller asked for: time limits in milliseconds, and whether better jobs go first."""

    execution_timeout_ms: int = EXECUTION_TIMEOUT_MS
    ttl_ms: int = TTL_MS
    low_priority: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One worker's right to one attempt, until a time.

    `take` names the request that handed the job over, so that a worker can give back what it never received.
    `confirms`: the worker reports when it has really stopped a job; others are believed at once.
    """

    worker: str
    until: float
    take: str = ""
    confirms: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request to an endpoint, for its whole life. Bodies (input, output, chunks) are kept beside it, opaque.

    Times are seconds since the epoch by the service's clock. `version` grows by one with each event.
    """

    id: str
    endpoint: str
    created_at: float
    queued_at: float
    status: Status = Status.IN_QUEUE
    policy: Policy = field(default_factory=Policy)
    webhook: str | None = None
    sync: bool = False
    attempt: int = 0
    retries: int = 0
    lease: Lease | None = None
    stop: StopReason | None = None
    taken_at: float | None = None
    ended_at: float | None = None
    worker: str | None = None
    gpu: str | None = None
    error: str | None = None
    version: int = 0

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL

    @property
    def delay_ms(self) -> int | None:
        """Time in the queue before the latest attempt, None while it was never taken."""
        return None if self.taken_at is None else max(0, round((self.taken_at - self.queued_at) * 1000))

    @property
    def execution_ms(self) -> int | None:
        """How long a worker held the final attempt, None while it has not ended or never ran."""
        if self.taken_at is None or self.ended_at is None:
            return None
        return max(0, round((self.ended_at - self.taken_at) * 1000))

    @property
    def deadline(self) -> float | None:
        """When the running attempt is over its executionTimeout, None while it does not run."""
        if self.taken_at is None or self.lease is None:
            return None
        return self.taken_at + self.policy.execution_timeout_ms / 1000

    @property
    def expires_at(self) -> float:
        """When the ttl, counted from submission, is over."""
        return self.created_at + self.policy.ttl_ms / 1000

    @property
    def due_at(self) -> float | None:
        """The earliest time at which `due` has an event for this job, None once it is final."""
        if self.final:
            return None
        lapse = math.inf if self.lease is None else math.nextafter(self.lease.until, math.inf)
        if self.stop is not None:
            return lapse
        return min(lapse, self.expires_at, math.inf if self.deadline is None else self.deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FromWorker(Event):
    """An event a worker reports. `attempt` is None from workers that do not count attempts."""

    worker: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Event):
    """A worker got a lease on the next attempt."""

    worker: str
    lease_s: float = LEASE_S
    take: str = ""
    confirms: bool = False
    gpu: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beaten(FromWorker):
    """The worker is alive and still holds the job."""

    lease_s: float = LEASE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(FromWorker):
    """The handler returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(FromWorker):
    """The attempt ended with an error."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(FromWorker):
    """The worker has stopped the job as it was told, and its slot is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned(FromWorker):
    """The worker gives the job back un-started; no attempt is spent.

    So the number may come again, with another hand-over: `take` says which one is meant, "" when that is not known.
    """

    take: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(Event):
    """A caller no longer wants the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseExpired(Event):
    """The worker fell silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionTimedOut(Event):
    """The attempt ran longer than the policy's executionTimeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Event):
    """The policy's ttl, counted from submission, is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtlSet(Event):
    """A caller says how long the job may still live."""

    ttl_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A caller asks for one more run of a job that did not complete."""


Q, P = Status.IN_QUEUE, Status.IN_PROGRESS

TRANSITIONS: dict[tuple[Status, type[Event]], frozenset[Status]] = {
    (Q, Taken): frozenset({P}),
    (Q, CancelRequested): frozenset({Status.CANCELLED}),
    (Q, Expired): frozenset({Status.TIMED_OUT}),
    (Q, TtlSet): frozenset({Q}),
    (P, Beaten): frozenset({P}),
    (P, TtlSet): frozenset({P}),
    (P, Succeeded): frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    (P, Failed): frozenset({Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    (P, Stopped): frozenset({Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    (P, Returned): frozenset({Q, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    (P, CancelRequested): frozenset({P, Status.CANCELLED}),
    (P, ExecutionTimedOut): frozenset({P, Status.FAILED}),
    (P, Expired): frozenset({P, Status.TIMED_OUT}),
    (P, LeaseExpired): frozenset({Q, Status.FAILED, Status.CANCELLED, Status.TIMED_OUT}),
    (Status.FAILED, Retried): frozenset({Q}),
    (Status.TIMED_OUT, Retried): frozenset({Q}),
}
"""(status, event) -> the statuses it may lead to. A pair that is not here is refused."""

FINAL = frozenset(Status) - {source for source, event in TRANSITIONS if event is not Retried}
"""The statuses in which a job has ended: nothing but a caller's `Retried` leads out of them."""

_STOPPED_STATUS = {
    StopReason.CANCELLED: Status.CANCELLED,
    StopReason.EXECUTION_TIMEOUT: Status.FAILED,
    StopReason.TTL: Status.TIMED_OUT,
}

_STOP_REASON: dict[type[Event], StopReason] = {
    CancelRequested: StopReason.CANCELLED,
    ExecutionTimedOut: StopReason.EXECUTION_TIMEOUT,
    Expired: StopReason.TTL,
}


def apply(job: Job, event: Event) -> Job:
    """Return the job as it is after `event`.

    Raises:
        StaleAttempt: a worker reports on an attempt it does not hold (any more).
        IllegalTransition: the job's status does not allow the event.
    """
    if isinstance(event, FromWorker):
        _check_lease(job, event)
    allowed = TRANSITIONS.get((job.status, type(event)))
    if allowed is None:
        raise IllegalTransition(f"a job that is {job.status} does not take {type(event).__name__}")
    new = _next(job, event)
    assert new.status in allowed, (job.status, event, new.status)  # noqa: S101 - the table is the law
    return new


def due(job: Job, now: float) -> Event | None:
    """The event that the passing of time means for the job at `now`, None while there is none.

    A job that is being stopped waits for its worker's answer or the end of its lease, for nothing else.
    At `lease.until` the lease still holds.
    """
    if job.due_at is None or now < job.due_at:
        return None
    if job.stop is None and job.expires_at <= now:
        return Expired(at=now)
    if job.stop is None and job.deadline is not None and job.deadline <= now:
        return ExecutionTimedOut(at=now)
    return LeaseExpired(at=now)


def _check_lease(job: Job, event: FromWorker) -> None:
    held = job.lease is not None and job.lease.worker == event.worker
    if isinstance(event, Returned) and event.take and job.lease is not None:
        held = held and job.lease.take == event.take
    if not held or event.attempt not in (None, job.attempt):
        raise StaleAttempt(f"worker {event.worker} does not hold attempt {event.attempt or job.attempt} of {job.id}")


def _next(job: Job, event: Event) -> Job:  # noqa: C901 - one case an event reads best in one place
    match event:
        case Taken():
            return _taken(job, event)
        case Beaten():
            assert job.lease is not None  # noqa: S101 - _check_lease has seen it
            return _with(job, lease=replace(job.lease, until=event.at + event.lease_s))
        case Succeeded() | Failed() | Stopped() if job.stop:
            return _ended(job, event.at, _STOPPED_STATUS[job.stop], _stop_error(job.stop))
        case Succeeded():
            return _ended(job, event.at, Status.COMPLETED)
        case Failed():
            return _ended(job, event.at, Status.FAILED, event.error)
        case Stopped():
            return _ended(job, event.at, Status.FAILED, "the worker stopped the job without being asked")
        case Returned() | LeaseExpired() if job.stop:
            return _ended(job, event.at, _STOPPED_STATUS[job.stop], _stop_error(job.stop))
        case Returned():
            return _queued(job, event.at, attempt=job.attempt - 1)
        case LeaseExpired():
            return _lost(job, event.at)
        case TtlSet():
            ttl_ms = round((event.at - job.created_at) * 1000) + event.ttl_ms
            return _with(job, policy=replace(job.policy, ttl_ms=ttl_ms))
        case Retried():
            fresh = {"created_at": event.at, "ended_at": None, "error": None, "stop": None, "retries": job.retries + 1}
            return _queued(job, event.at, attempt=0, **fresh)
        case _:
            return _stop(job, event.at, _STOP_REASON[type(event)])


def _taken(job: Job, event: Taken) -> Job:
    lease = Lease(worker=event.worker, until=event.at + event.lease_s, take=event.take, confirms=event.confirms)
    return _with(
        job,
        status=Status.IN_PROGRESS,
        attempt=job.attempt + 1,
        lease=lease,
        taken_at=event.at,
        worker=event.worker,
        gpu=event.gpu,
    )


def _lost(job: Job, at: float) -> Job:
    if job.attempt >= MAX_ATTEMPTS:
        return _ended(job, at, Status.FAILED, f"job timed out after {job.attempt - 1} retries")
    return _queued(job, at, attempt=job.attempt, retries=job.retries + 1)


def _stop(job: Job, at: float, reason: StopReason) -> Job:
    if job.lease and job.lease.confirms:  # final only once the worker says that its slot is free
        return _with(job, stop=job.stop or reason)
    return _ended(job, at, _STOPPED_STATUS[reason], _stop_error(reason))


def _stop_error(reason: StopReason) -> str | None:
    return reason.value if reason is StopReason.EXECUTION_TIMEOUT else None


def _queued(job: Job, at: float, *, attempt: int, **more: object) -> Job:
    gone = {"lease": None, "taken_at": None, "worker": None, "gpu": None}
    return _with(job, status=Status.IN_QUEUE, queued_at=at, attempt=attempt, **gone, **more)


def _ended(job: Job, at: float, status: Status, error: str | None = None) -> Job:
    return _with(job, status=status, lease=None, ended_at=at, error=error)


_FIELDS = tuple(each.name for each in fields(Job))
_values = attrgetter(*_FIELDS)


def _with(job: Job, **changes: object) -> Job:
    """The next version of the job. Every job passes here twice, and `dataclasses.replace` takes three times as long."""
    values = dict(zip(_FIELDS, _values(job), strict=True))
    values.update(changes)
    values["version"] = job.version + 1
    return Job(**values)
