"""The messages between the agent and an executor.

Each message is one MessagePack array, tagged with its class name. The agent never parses bodies (a job's JSON, an
output, a file). Times are seconds of `time.monotonic`, a clock that both processes share.
"""

from __future__ import annotations

import msgspec

from runpod_worker.core.dispatch.values import Timings


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


class Stop(Message, frozen=True):
    """Stop the attempt; the handler's JobStopped carries `reason`. The answer is Done(stopped=True)."""

    key: str
    reason: str


class Revoke(Message, frozen=True):
    """Forget the job unless its handler has started. The answer is Done(revoked=True), or the job's own Done."""

    key: str


class WindowUpdate(Message, frozen=True):
    """`size` bytes of the job's chunks and files are no longer in flight: delivered to the service, or dropped."""

    key: str
    size: int


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


class Started(Message, frozen=True):
    """The executor is about to call the handler."""

    key: str
    at: float


class Chunks(Message, frozen=True):
    """Consecutive chunks of one job, each as JSON; the first one has this index."""

    key: str
    index: int
    outputs: list[bytes]


class Progress(Message, frozen=True):
    """The handler's latest progress value (JSON)."""

    key: str
    value: bytes


class File(Message, frozen=True):
    """A file that the handler saved. The agent stores it before it reports the job's outcome."""

    key: str
    token: str
    name: str
    content_type: str
    body: bytes


class FileFailed(Message, frozen=True):
    """Encoding a saved file failed: the job fails with this error."""

    key: str
    name: str
    error: str


class Done(Message, frozen=True):
    """The attempt's slot is free. Exactly one per Run.

    output: None leaves the key out of the result (protocol C.2: the handler returned `{}`).
    files: how many File and FileFailed messages the attempt has in total; some may follow this message.
    """

    key: str
    output: bytes | None = None
    error: str | None = None
    refresh: bool = False
    stopped: bool = False
    revoked: bool = False
    is_stream: bool = False
    files: int = 0
    timings: Timings | None = None


ToExecutor = Run | Stop | Revoke | WindowUpdate
ToAgent = Ready | LoadFailed | SlotsChanged | Started | Chunks | Progress | File | FileFailed | Done
