"""What the agent and an executor say to each other.

Each frame is one MessagePack array, tagged by its class name. Bodies (a job's JSON, an output, a file) are opaque bytes
to the agent. Times are seconds of the machine's monotonic clock (`time.monotonic`), which both processes share.
"""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """One message on the channel."""


# ------------------------------------------------------------------ agent -> executor


class Run(Frame, frozen=True):
    """Run this job as soon as a slot is free. `body` is the job object as received (JSON)."""

    key: str
    """Unique per assignment: job id and attempt. Everything about the job is said under this key."""
    body: bytes
    taken_at: float
    timeout_s: float | None = None
    files_url: str | None = None
    """Where saved files will be readable, without the token; None: no file store was agreed."""


class Stop(Frame, frozen=True):
    """Give the job up: `reason` is what the handler's JobStopped says. Answered by Done(stopped=True)."""

    key: str
    reason: str


class Unrun(Frame, frozen=True):
    """Forget the job if its handler was not entered yet. Answered by Done(unrun=True), or by the job's own Done."""

    key: str


class Credit(Frame, frozen=True):
    """So many bytes of the job's chunks and files have left the agent (or were dropped there)."""

    key: str
    size: int


# ------------------------------------------------------------------ executor -> agent


class Ready(Frame, frozen=True):
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


class LoadFailed(Frame, frozen=True):
    """The model could not be loaded, or a check failed; the executor exits after this."""

    error: str
    check: str | None = None
    """The name of the check that failed."""


class Resized(Frame, frozen=True):
    """From now on there are so many slots. Jobs that run in more of them go on."""

    slots: int


class Started(Frame, frozen=True):
    """The handler was entered."""

    key: str
    at: float


class Chunks(Frame, frozen=True):
    """Consecutive chunks of a job, each its JSON; the first has this index."""

    key: str
    index: int
    outputs: list[bytes]


class Progress(Frame, frozen=True):
    """The handler's latest progress value (JSON)."""

    key: str
    value: bytes


class File(Frame, frozen=True):
    """One file the handler saved. The job's result must not be posted before it is stored."""

    key: str
    token: str
    name: str
    content_type: str
    body: bytes


class FileFailed(Frame, frozen=True):
    """A file could not be encoded: the job fails with this error."""

    key: str
    name: str
    error: str


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Monotonic times of one attempt inside the executor."""

    input_ready: float
    started: float
    finished: float
    encoded: float
    first_chunk: float | None = None


class Done(Frame, frozen=True):
    """The job's slot is free. Exactly one per Run.

    output None: the key is left out of the result (protocol C.2, the handler returned `{}`).
    files: how many File or FileFailed frames belong to the job, before or after this frame.
    """

    key: str
    output: bytes | None = None
    error: str | None = None
    refresh: bool = False
    stopped: bool = False
    unrun: bool = False
    is_stream: bool = False
    files: int = 0
    timings: Timings | None = None


ToExecutor = Run | Stop | Unrun | Credit
ToAgent = Ready | LoadFailed | Resized | Started | Chunks | Progress | File | FileFailed | Done
