"""The actions that the dispatcher wants, as values that the agent performs in order.

Every assigned job ends in exactly one of Report, Release and Forget.
"""

from __future__ import annotations

import msgspec

from runpod_worker.core.dispatch.messages import Revoke, Run, Stop
from runpod_worker.core.dispatch.values import AttemptRef, Outcome, StopCause


class Effect(msgspec.Struct, frozen=True):
    """Something to do."""


class WorkerEffect(Effect, frozen=True):
    """An effect on the worker as a whole, or on one of its processes."""


# ------------------------------------------------------------------ executors


class StartExecutor(WorkerEffect, frozen=True):
    """Start the executor's process after `delay_s`. `exited`: how the one before it ended."""

    executor: int
    delay_s: float = 0.0
    exited: str | None = None


class Send(Effect, frozen=True):
    """Send the executor this message about the attempt. Done, ExecutorExited or Kill follows."""

    executor: int
    message: Run | Stop | Revoke
    attempt: AttemptRef


class Retire(WorkerEffect, frozen=True):
    """Let the executor's process end, which holds no job. ExecutorExited follows."""

    executor: int


class Kill(Effect, frozen=True):
    """Kill the executor's process. ExecutorExited follows."""

    executor: int
    reason: str


# ------------------------------------------------------------------ jobs


class Adopt(Effect, frozen=True):
    """Report the run `key` as this attempt from now on, because the service assigned the held job again."""

    key: str
    attempt: AttemptRef
    held: int | None


class Report(Effect, frozen=True):
    """Report the outcome. `stopped_for`: the job was stopped for this cause."""

    key: str
    attempt: AttemptRef
    outcome: Outcome
    taken_at: float
    stopped_for: StopCause | None = None


class DiscardReports(Effect, frozen=True):
    """Drop the chunks, files and progress that were not sent yet. An outcome may follow."""

    key: str


class Release(Effect, frozen=True):
    """Release the job: this worker will not run it."""

    key: str
    attempt: AttemptRef


class Forget(Effect, frozen=True):
    """Report nothing more about the job. Without `stopped_for`, its lease expires and another worker gets it."""

    key: str
    attempt: AttemptRef
    stopped_for: StopCause | None = None


# ------------------------------------------------------------------ takes, and the worker


class WithdrawTake(Effect, frozen=True):
    """Cancel the open take. TakeLost or Assigned follows."""

    take_id: str


class ReleaseTake(Effect, frozen=True):
    """Release all jobs that this take may have returned."""

    take_id: str


class Reconnect(WorkerEffect, frozen=True):
    """The worker was frozen for `away_s`: open new connections, and send a heartbeat before any report."""

    away_s: float


class ReportUnhealthy(WorkerEffect, frozen=True):
    """Report to the service that a fitness check failed."""

    check: str
    reason: str


class AnnounceDrain(WorkerEffect, frozen=True):
    """The worker drains, and will exit with this code."""

    code: int
    reason: str


class Exit(WorkerEffect, frozen=True):
    """No job runs any more: shut the executors down, deliver the reports, exit. `cut_off`: jobs were still running."""

    cut_off: bool
