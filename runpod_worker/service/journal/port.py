"""The port to persistence. The docstrings are the contract: `tests/service/journal` holds every journal to it.

Rules are decided in memory (`service.queue`). A journal makes the decisions durable and brings them back after a
restart. It holds no rule about a job's status, and bodies are opaque bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from runpod_worker.core.job import Job


class CounterDelta(NamedTuple):
    """How far one write moves the three counters of an endpoint that only grow."""

    completed: int = 0
    failed: int = 0
    retried: int = 0

    def plus(self, other: CounterDelta) -> CounterDelta:
        """Return the sum."""
        return CounterDelta(self.completed + other.completed, self.failed + other.failed, self.retried + other.retried)


NO_DELTA = CounterDelta()


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook the service still owes. The body is built from the job when it is sent."""

    job_id: str
    url: str
    tries: int
    next_at: float


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest version of a job, and what changes with it.

    `seq` numbers the jobs in the order they were added. `epoch` is for journals that several services write to: the
    epoch under which the writer owns the endpoint.
    """

    seq: int
    job: Job
    epoch: int = 0
    request: bytes | None = None
    """The caller's request; set when the job is new."""
    output: bytes | None = None
    drops_output: bool = False
    """Whether an earlier output is dropped; implied by `output`."""
    drops_chunks: bool = False
    """Whether the chunks written so far are dropped."""
    chunk_base: int | None = None
    """If set, the number from which the next attempt counts its chunks."""
    delivery: Delivery | None = None
    """If set, the webhook owed from now on."""
    drops_delivery: bool = False
    """Whether the webhook is not owed any more."""
    delta: CounterDelta = NO_DELTA

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.job.id


class ChunkRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Chunks of a job, numbered from `start`."""

    seq: int
    job_id: str
    start: int
    chunks: list[bytes]
    epoch: int = 0


class ForgetRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A final job that is deleted with all it has, unless it did not end at `ended_at` (it was retried since)."""

    seq: int
    job_id: str
    ended_at: float
    epoch: int = 0


Record = JobRecord | ChunkRecord | ForgetRecord


class StoredJob(NamedTuple):
    """A job as the journal has it."""

    seq: int
    job: Job
    delivery: Delivery | None = None


class Snapshot(NamedTuple):
    """What a new process needs in memory. `last_seq` is the highest number of any job, ended ones included."""

    jobs: list[StoredJob]
    """The jobs that have not ended, by `seq`."""
    deliveries: list[Delivery]
    counters: dict[str, CounterDelta]
    last_seq: int


class EndedJob(NamedTuple):
    """A job that ended, as `find_ended` lists it."""

    seq: int
    job_id: str
    ended_at: float


Body = Literal["requests", "outputs"]


class Written(asyncio.Future[None]):
    """The outcome of an append.

    It cannot be cancelled, because the write cannot: a task that is cancelled while it awaits this is cancelled once
    the outcome is known.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


class Journal(Protocol):
    """Makes records durable and reads them back. All methods are called from one event loop.

    `keeps`: whether records can be read back. If not, everything must stay in memory; then reads return nothing.
    """

    @property
    def keeps(self) -> bool: ...

    def load(self, on_lost: Callable[[Collection[str]], None]) -> Snapshot:
        """Return what a process before this one left. Called once, before any other method.

        `on_lost` is called with the ids of the jobs whose records could not be written, before the futures of these
        appends fail: the caller must `read` these jobs again, for what memory has of them will never be written.
        """

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        """Write the records, in order, as one unit, behind all that was appended before.

        The future resolves once they survive the death of the process, and a power cut if `durable`. It fails with
        StoreUnavailable if they were not written, or if that is in doubt. If a record fails, every later one about the
        same job that was appended before the call of `on_lost` fails too: it was decided on top of what is lost.
        """

    def read(self, job_id: str) -> StoredJob | None:
        """Return the job as it is written, None if there is none. At once: for one job, on the loop."""

    async def body(self, kind: Body, seq: int) -> bytes | None:
        """Return the job's request or output as it is written, None if there is none."""

    def chunk_range(self, seq: int) -> tuple[int, int]:
        """Return the number from which the running attempt counts its chunks, and the number of chunks written."""

    def chunks(self, seq: int, start: int, stop: int) -> list[bytes]:
        """Return the written chunks with numbers from `start` to before `stop`, in order."""

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        """Return at most `limit` jobs that ended before this time and owe no webhook, those that ended first first."""

    async def close(self) -> None:
        """Finish what is under way and release files. Later appends fail."""
