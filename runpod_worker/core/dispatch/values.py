"""Values that the dispatcher, the link and the agent exchange."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a job, as a take returns it. `body` is the unchanged JSON of the job.

    `attempt` and `timeout_s` (the rest of executionTimeout) are None if the service does not send them.
    `error`: the job cannot run; report it as failed.
    """

    id: str
    body: bytes
    attempt: int | None = None
    timeout_s: float | None = None
    error: str | None = None


class AttemptRef(NamedTuple):
    """Identifies the attempt of a report. `number` is None if the service does not count attempts.

    `take_id` is the take that returned it, because a released job may be assigned again with the same number.
    """

    job_id: str
    number: int | None
    take_id: str = ""


class TakeRequest(NamedTuple):
    """A request for at most `max_jobs` jobs. If the reply is lost, the worker releases its jobs by this `id`."""

    max_jobs: int
    id: str


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Monotonic times of one attempt inside the executor."""

    input_ready: float
    started: float
    finished: float
    encoded: float
    first_chunk: float | None = None


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """The end of an attempt: an output (JSON), an error, or a confirmed stop.

    `output`: None leaves the key out of the result (protocol C.2: the handler returned `{}`).
    `refresh`: replace this worker after the job. `files`: the number of output files to store before the report.
    """

    output: bytes | None = None
    error: str | None = None
    refresh: bool = False
    stopped: bool = False
    is_stream: bool = False
    files: int = 0
    timings: Timings | None = None


class ExitReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an executor's process ended.

    `how` completes "the handler's process ..."; `killed_for` says why the agent killed it.
    """

    how: str
    last_lines: str = ""
    exit_code: int | None = None
    killed_for: str | None = None
    can_restart: bool = True


class OnRefresh(StrEnum):
    """What to do when a handler asks for a new worker."""

    EXIT = "exit"
    """End this worker, because a platform starts the next one."""

    REPLACE = "replace"
    """Replace the executor; the worker stays."""

    KEEP = "keep"
    """Nothing, because neither can be replaced."""


class StopCause(StrEnum):
    """Why a held job is stopped; decides the report when its slot is free."""

    SERVICE = "the job service requested it"
    """The job was cancelled or timed out. The service waits for the confirmation that the slot is free."""

    TIMEOUT = EXECUTION_TIMEOUT_ERROR
    """This worker noticed the timeout. It reports the job as failed, with the platform's text."""

    HANDLER_TIMEOUT = "the handler's own timeout exceeded"

    LEASE_LOST = "this worker no longer holds the attempt"
    """Report nothing, because another worker has the job, or it has ended."""
