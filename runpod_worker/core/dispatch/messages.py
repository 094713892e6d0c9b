"""The messages between the agent and an executor.

Each message is one MessagePack array, tagged with its class name. The agent never parses bodies (a job's JSON, an
output, a file). Times are seconds of `time.monotonic`, a clock that both processes share.
"""

from __future__ import annotations

import msgspec

from runpod_worker.core.dispatch.values import Outcome


class Message(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """One message on the channel."""


# ------------------------------------------------------------------ agent -> executor


class Run(Message, frozen=True):
    """Run this job as soon as a slot is free. `body` is the job object as received (JSON)."""

    key: str
    """Unique per attempt; every other message about the attempt carries it."""
    body: bytes
    taken_at: float
    timeout_s: float | None = None
    files_url: str | None = None
    """The base of the URLs of saved files; None if the service has no file store."""
    max_file_bytes: int | None = None
    """The service refuses larger files; None if it does not say."""


class Stop(Message, frozen=True):
    """Stop the attempt; the handler's JobStopped carries `reason`. The answer is Done(stopped=True)."""

    key: str
    reason: str


class Revoke(Message, frozen=True):
    """Forget the job unless its handler has started. The answer is Done(revoked=True), or the job's own Done.

    `is_blocked`: the job waits behind jobs that run longer than expected; else the worker drains.
    """

    key: str
    is_blocked: bool = False


class WindowUpdate(Message, frozen=True):
    """`size` bytes of the job's chunks and files are no longer in flight: delivered to the service, or dropped."""

    key: str
    size: int


class Shutdown(Message, frozen=True):
    """The worker ends: run the shutdown hooks and exit. Without it, a closed channel means that the agent is dead."""


# ------------------------------------------------------------------ executor -> agent


class Ready(Message, frozen=True):
    """The model is loaded; jobs may come. Sent once."""

    kind: str
    """function, coroutine, generator or async_generator."""
    slots: int
    load_s: float
    device: str
    gpu: str | None = None
    timeout_s: float | None = None
    aggregate: bool = False
    refresh: bool = False


class LoadFailed(Message, frozen=True):
    """Loading the model or a fitness check failed; the executor exits after this message."""

    error: str
    check: str | None = None
    """The name of the check that failed, if a check failed."""
    reason: str = ""
    """Why it failed."""


class SlotsChanged(Message, frozen=True):
    """The executor now has this number of slots. Jobs that already run beyond it continue."""

    slots: int


class Terminated(Message, frozen=True):
    """The executor's process got SIGTERM, from its handler for example: the worker should drain."""


class Started(Message, frozen=True):
    """The executor is about to call the handler."""

    key: str
    at: float


class Done(Outcome, tag=True, frozen=True, kw_only=True):
    """The attempt's slot is free, with this outcome. Exactly one per Run.

    `stopped`: the executor ended the attempt after a Stop. `revoked`: it forgot the job before its handler started.
    """

    key: str
    revoked: bool = False


# ------------------------------------------------------------------ executor -> agent, for the job service


class Report(Message, frozen=True):
    """A report of an attempt that the agent delivers. Some may follow the attempt's Done."""

    key: str


class Chunks(Report, frozen=True):
    """Consecutive chunks of one job, each as JSON; the first one has this index."""

    index: int
    outputs: list[bytes]


class Progress(Report, frozen=True):
    """The handler's latest progress value (JSON)."""

    value: bytes


class FilePart(Report, frozen=True):
    """The next bytes of a file that is too large for one message. Its `File` comes last, with the rest."""

    token: str
    body: bytes


class File(Report, frozen=True):
    """A file that the handler saved. The agent stores it before it reports the job's outcome."""

    token: str
    name: str
    content_type: str
    body: bytes


class FileFailed(Report, frozen=True):
    """Encoding a saved file failed: the job fails with this error."""

    name: str
    error: str


ToExecutor = Run | Stop | Revoke | WindowUpdate | Shutdown
ToDispatcher = Ready | LoadFailed | SlotsChanged | Terminated | Started | Done
ToAgent = ToDispatcher | Chunks | Progress | FilePart | File | FileFailed
