"""The events that the agent reports to the dispatcher. Executors are identified by their number."""

from __future__ import annotations

import msgspec

from runpod_worker.core.dispatch.values import Assignment, AttemptRef, ExitReport, Outcome, TakeRequest


class Event(msgspec.Struct, frozen=True):
    """Something that happened."""


class WorkerStarted(Event, frozen=True):
    """The agent runs, and no executor yet."""


class Agreed(Event, frozen=True):
    """The service answered a heartbeat with these extensions (docs/extensions.md)."""

    extensions: frozenset[str]


# ------------------------------------------------------------------ takes


class TakeSent(Event, frozen=True):
    """A take is sent. `is_poll`: it is a long poll; otherwise it travels with a report and is answered at once."""

    request: TakeRequest
    is_poll: bool


class Assigned(Event, frozen=True):
    """The service answered a take, with jobs or without."""

    take_id: str
    jobs: tuple[Assignment, ...]


class TakeLost(Event, frozen=True):
    """A take got no reply: the service may have assigned jobs that this worker never saw."""

    take_id: str


# ------------------------------------------------------------------ executors


class ExecutorReady(Event, frozen=True):
    """The model is loaded. `refresh`: replace the worker after every job."""

    executor: int
    slots: int
    timeout_s: float | None = None
    refresh: bool = False


class SlotsChanged(Event, frozen=True):
    """The executor now has this number of slots."""

    executor: int
    slots: int


class Started(Event, frozen=True):
    """The executor is about to call the handler."""

    executor: int
    key: str
    at: float


class Streamed(Event, frozen=True):
    """The job produced its first chunk. Callers may see it, so the job cannot simply run again."""

    executor: int
    key: str


class Finished(Event, frozen=True):
    """The handler returned and the job's slot is free. `stopped`: the executor ended it after a stop."""

    executor: int
    key: str
    outcome: Outcome
    stopped: bool = False


class Revoked(Event, frozen=True):
    """The executor forgot the job before its handler started."""

    executor: int
    key: str


class ExecutorExited(Event, frozen=True):
    """The executor's process ended, after its last message was handled."""

    executor: int
    report: ExitReport


# ------------------------------------------------------------------ reports and stops


class Delivered(Event, frozen=True):
    """The outcome reached the service, or the spool. `round_trip_s`: how long the last request took, if measured."""

    key: str
    round_trip_s: float | None = None


class ReportsFull(Event, frozen=True):
    """The size of undelivered reports reached its limit, or fell below it."""

    full: bool


class StopRequested(Event, frozen=True):
    """The service wants this attempt to stop. A number of None means the attempt that is held."""

    attempt: AttemptRef


class LeaseLost(Event, frozen=True):
    """The service refused a report, because this worker no longer holds the attempt."""

    key: str


# ------------------------------------------------------------------ the end, and time


class Drain(Event, frozen=True):
    """Take no more jobs, finish those that run, and exit with this code."""

    code: int
    reason: str


class GraceOver(Event, frozen=True):
    """Do not wait for running jobs any longer."""


class Tick(Event, frozen=True):
    """`next_deadline` was reached."""
