"""The events that the agent reports to the dispatcher. Executors are identified by their number."""

from __future__ import annotations

import msgspec

from runpod_worker.core.dispatch.messages import ToDispatcher
from runpod_worker.core.dispatch.values import Assignment, AttemptRef, ExitReport, TakeRequest


class Event(msgspec.Struct, frozen=True):
    """Something that happened."""


class WorkerStarted(Event, frozen=True):
    """The agent runs, and no executor yet."""


class Agreed(Event, frozen=True):
    """The service answered a heartbeat with these extensions (docs/extensions.md).

    `files_url`: the base of the URLs of saved files; None if the service has no file store.
    `max_file_bytes`: the service refuses larger files; None if it does not say.
    """

    extensions: frozenset[str]
    files_url: str | None = None
    max_file_bytes: int | None = None


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


class Received(Event, frozen=True):
    """The executor sent this message."""

    executor: int
    message: ToDispatcher


class Streamed(Event, frozen=True):
    """The job produced its first chunk. Callers may see it, so the job cannot simply run again."""

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


class LeasesListed(Event, frozen=True):
    """The service answered a heartbeat that listed `attempts`: it named the jobs on which this worker has a lease."""

    attempts: dict[str, int | None]
    leased: frozenset[str]


# ------------------------------------------------------------------ the end, and time


class Drain(Event, frozen=True):
    """Take no more jobs, finish those that run, and exit with this code."""

    code: int
    reason: str


class GraceOver(Event, frozen=True):
    """Do not wait for running jobs any longer."""


class Thawed(Event, frozen=True):
    """The whole worker did not run for `away_s` seconds: it was frozen with its machine or container, or stopped."""

    away_s: float


class Tick(Event, frozen=True):
    """`next_deadline` was reached."""
