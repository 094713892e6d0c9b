"""Every rule about a job's status lives in this file.

1. `TRANSITIONS` names for each (status, event) the function that makes the next version of the job, and the statuses it
   may lead to. `apply` looks the pair up and refuses any other pair. Nothing else in the project decides a status.
2. A worker's event counts only while the worker holds the job's lease; `apply` checks that first.
3. A job that its worker is stopping ends with the status of its `stop`, however the worker answers.
4. Nothing here does I/O or reads a clock: each event carries the time `at` it happened, in seconds since the epoch.

A job is IN_PROGRESS exactly while a worker holds a lease on it. A final status has no way out except `Retried`.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from runpod_worker.core.errors import IllegalTransition, StaleAttempt
from runpod_worker.core.job import FailureKind, Job, Lease, Status, StopReason
from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR

MAX_ATTEMPTS = 2
"""A job whose worker is lost is requeued until it has had this many attempts, then it fails, as on the platform
(protocol B.9)."""

LEASE_S = 40.0
"""How long a job stays with a worker that sends no heartbeat, as measured on the platform (protocol A.3, B.9)."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job."""

    at: float


class WorkerEvent(Event, frozen=True, kw_only=True):
    """An event a worker reports. `attempt` is None from workers that do not count attempts."""

    worker: str
    attempt: int | None = None


class Taken(Event, frozen=True, kw_only=True):
    """A worker got a lease on the next attempt."""

    worker: str
    lease_s: float = LEASE_S
    take: str = ""
    confirms: bool = False
    gpu: str | None = None


class LeaseRenewed(WorkerEvent, frozen=True, kw_only=True):
    """The worker is alive and still holds the job."""

    lease_s: float = LEASE_S


class Succeeded(WorkerEvent, frozen=True, kw_only=True):
    """The handler returned."""


class Failed(WorkerEvent, frozen=True, kw_only=True):
    """The attempt ended with an error."""

    error: str
    kind: FailureKind = FailureKind.HANDLER_ERROR


class Stopped(WorkerEvent, frozen=True, kw_only=True):
    """The worker has stopped the job, and its slot is free."""


class Released(WorkerEvent, frozen=True, kw_only=True):
    """The worker will not run the job. The attempt does not count, so its number is used again.

    `take` is the id of the take that assigned the attempt, since two attempts may have the same number; "" when the
    worker does not know it.
    """

    take: str = ""


class CancelRequested(Event, frozen=True, kw_only=True):
    """A caller no longer wants the job."""


class LeaseExpired(Event, frozen=True, kw_only=True):
    """The worker sent no heartbeat for the whole lease."""


class ExecutionTimedOut(Event, frozen=True, kw_only=True):
    """The attempt ran longer than the policy's executionTimeout."""


class Expired(Event, frozen=True, kw_only=True):
    """The policy's ttl, counted from submission, has ended."""


class TtlSet(Event, frozen=True, kw_only=True):
    """A caller sets how long the job may live, counted from now."""

    ttl_ms: int


class Retried(Event, frozen=True, kw_only=True):
    """A caller asks for one more run of a job that did not complete."""


def apply(job: Job, event: Event) -> Job:
    """Return the job as it is after `event`.

    Raises:
        StaleAttempt: the worker does not hold the attempt.
        IllegalTransition: the job's status does not allow the event.
    """
    if isinstance(event, WorkerEvent):
        _held_lease(job, event)
    transition = TRANSITIONS.get((job.status, type(event)))
    if transition is None:
        raise IllegalTransition(f"a job that is {job.status} does not take {type(event).__name__}")
    if job.stop is not None and transition.ends_stop:
        return _end_stopped(job, event.at, job.stop)
    return transition.resolve(job, event)


def due(job: Job, now: float) -> Event | None:
    """The event that is due for the job at `now`, or None.

    A job that is being stopped waits only for its worker's answer or the end of its lease.
    At `lease.until` the lease still holds.
    """
    if job.due_at is None or now < job.due_at:
        return None
    if job.stop is None and job.expires_at <= now:
        return Expired(at=now)
    if job.stop is None and job.deadline is not None and job.deadline <= now:
        return ExecutionTimedOut(at=now)
    return LeaseExpired(at=now)


def clamp_times(job: Job, now: float) -> Job:
    """Return an unfinished job with no time after `now`: it was stored before the clock was set back."""
    latest = max(job.created_at, job.queued_at, job.taken_at or 0.0)
    if latest <= now or job.final:
        return job
    taken_at = None if job.taken_at is None else min(job.taken_at, now)
    return replace(job, created_at=min(job.created_at, now), queued_at=min(job.queued_at, now), taken_at=taken_at)


def infer_failure(error: str | None, *, attempt: int = 0) -> FailureKind:
    """The kind of a failure when only its text is known. The text comes from a worker's report, or from a job that
    release 0.1 stored after this `attempt`."""
    if error == _lost_error(attempt):
        return FailureKind.WORKER_LOST
    return _KINDS_BY_ERROR.get(error or "", FailureKind.HANDLER_ERROR)


def _held_lease(job: Job, event: WorkerEvent) -> Lease:
    lease = job.lease
    other_take = isinstance(event, Released) and event.take and lease is not None and event.take != lease.take
    if lease is None or lease.worker != event.worker or event.attempt not in (None, job.attempt) or other_take:
        raise StaleAttempt(f"worker {event.worker} does not hold attempt {event.attempt or job.attempt} of {job.id}")
    return lease


def _take(job: Job, event: Taken) -> Job:
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


def _renew_lease(job: Job, event: LeaseRenewed) -> Job:
    return _with(job, lease=replace(_held_lease(job, event), until=event.at + event.lease_s))


def _complete(job: Job, event: Succeeded) -> Job:
    return _end(job, event.at, Status.COMPLETED)


def _fail(job: Job, event: Failed) -> Job:
    return _end(job, event.at, Status.FAILED, event.error, event.kind)


def _fail_stopped_unasked(job: Job, event: Stopped) -> Job:
    return _end(job, event.at, Status.FAILED, _STOPPED_UNASKED, FailureKind.STOPPED)


def _release(job: Job, event: Released) -> Job:
    return _queue(job, event.at, attempt=job.attempt - 1)


def _lose(job: Job, event: LeaseExpired) -> Job:
    if job.run_attempts >= MAX_ATTEMPTS:
        return _end(job, event.at, Status.FAILED, _lost_error(job.run_attempts), FailureKind.WORKER_LOST)
    return _queue(job, event.at, attempt=job.attempt, retries=job.retries + 1)


def _stop(job: Job, event: Event, *, reason: StopReason) -> Job:
    if job.lease and job.lease.confirms:  # final only once the worker reports that its slot is free
        return _with(job, stop=job.stop or reason)
    return _end_stopped(job, event.at, reason)


_cancel = partial(_stop, reason=StopReason.CANCELLED)
_time_out = partial(_stop, reason=StopReason.EXECUTION_TIMEOUT)
_expire = partial(_stop, reason=StopReason.TTL)


def _set_ttl(job: Job, event: TtlSet) -> Job:
    ttl_ms = round((event.at - job.created_at) * 1000) + event.ttl_ms
    return _with(job, policy=replace(job.policy, ttl_ms=ttl_ms))


def _retry(job: Job, event: Retried) -> Job:
    counted = {"earlier_attempts": job.attempt, "retries": job.retries + 1}
    cleared = {"ended_at": None, "error": None, "failure": None, "stop": None}
    return _queue(job, event.at, attempt=job.attempt, created_at=event.at, **counted, **cleared)


class Transition(NamedTuple):
    """What an event does to a job of a certain status.

    `ends_stop`: if the job is being stopped, the event ends it with the status of its `stop` instead.
    """

    resolve: Callable[[Job, Any], Job]
    leads_to: Set[Status]
    ends_stop: bool = False


TRANSITIONS: dict[tuple[Status, type[Event]], Transition] = {
    (Status.IN_QUEUE, Taken): Transition(_take, {Status.IN_PROGRESS}),
    (Status.IN_QUEUE, CancelRequested): Transition(_cancel, {Status.CANCELLED}),
    (Status.IN_QUEUE, Expired): Transition(_expire, {Status.TIMED_OUT}),
    (Status.IN_QUEUE, TtlSet): Transition(_set_ttl, {Status.IN_QUEUE}),
    (Status.IN_PROGRESS, LeaseRenewed): Transition(_renew_lease, {Status.IN_PROGRESS}),
    (Status.IN_PROGRESS, TtlSet): Transition(_set_ttl, {Status.IN_PROGRESS}),
    (Status.IN_PROGRESS, Succeeded): Transition(_complete, {Status.COMPLETED}, ends_stop=True),
    (Status.IN_PROGRESS, Failed): Transition(_fail, {Status.FAILED}, ends_stop=True),
    (Status.IN_PROGRESS, Stopped): Transition(_fail_stopped_unasked, {Status.FAILED}, ends_stop=True),
    (Status.IN_PROGRESS, Released): Transition(_release, {Status.IN_QUEUE}, ends_stop=True),
    (Status.IN_PROGRESS, LeaseExpired): Transition(_lose, {Status.IN_QUEUE, Status.FAILED}, ends_stop=True),
    (Status.IN_PROGRESS, CancelRequested): Transition(_cancel, {Status.IN_PROGRESS, Status.CANCELLED}),
    (Status.IN_PROGRESS, ExecutionTimedOut): Transition(_time_out, {Status.IN_PROGRESS, Status.FAILED}),
    (Status.IN_PROGRESS, Expired): Transition(_expire, {Status.IN_PROGRESS, Status.TIMED_OUT}),
    (Status.FAILED, Retried): Transition(_retry, {Status.IN_QUEUE}),
    (Status.TIMED_OUT, Retried): Transition(_retry, {Status.IN_QUEUE}),
}
"""(status, event) -> the effect of the event. Any other pair is refused."""

FINAL = frozenset(Status) - {source for source, event in TRANSITIONS if event is not Retried}
"""The statuses of an ended job. Only a caller's `Retried` leads out of them."""

_STOPPED_STATUS: dict[StopReason, tuple[Status, str | None, FailureKind | None]] = {
    StopReason.CANCELLED: (Status.CANCELLED, None, None),
    StopReason.EXECUTION_TIMEOUT: (Status.FAILED, EXECUTION_TIMEOUT_ERROR, FailureKind.EXECUTION_TIMEOUT),
    StopReason.TTL: (Status.TIMED_OUT, None, None),
}
"""The status, error and failure with which a stopped job ends."""

_STOPPED_UNASKED = "the worker stopped the job without being asked"

_KINDS_BY_ERROR = {
    EXECUTION_TIMEOUT_ERROR: FailureKind.EXECUTION_TIMEOUT,
    _STOPPED_UNASKED: FailureKind.STOPPED,
}


def _end_stopped(job: Job, at: float, reason: StopReason) -> Job:
    return _end(job, at, *_STOPPED_STATUS[reason])


def _lost_error(attempt: int) -> str:
    """The platform's words (protocol B.9)."""
    return f"job timed out after {attempt - 1} retries"


def _queue(job: Job, at: float, *, attempt: int, **more: object) -> Job:
    cleared = {"lease": None, "taken_at": None, "worker": None, "gpu": None}
    return _with(job, status=Status.IN_QUEUE, queued_at=at, attempt=attempt, **cleared, **more)


def _end(job: Job, at: float, status: Status, error: str | None = None, failure: FailureKind | None = None) -> Job:
    return _with(job, status=status, lease=None, ended_at=at, error=error, failure=failure)


def _with(job: Job, **changes: Any) -> Job:
    """The next version of the job."""
    return replace(job, version=job.version + 1, **changes)
