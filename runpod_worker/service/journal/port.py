"""The port to persistence. The docstrings are the contract; `tests/service/journal` checks every journal against it.

`service.queue` decides in memory. A journal makes the decisions durable and brings them back after a restart. It has no
rule about a job's status, and treats bodies as opaque bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import msgspec

from runpod_worker.core.job import Job

Total = Literal["completed", "failed", "retried"]
"""A number of jobs that the service keeps for each endpoint."""

TOTALS: tuple[Total, ...] = get_args(Total)

Totals = Counter[tuple[str, Total]]
"""The totals, by endpoint."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook to send. Its body is made from the job at that time."""

    job_id: str
    url: str
    tries: int
    next_at: float


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest version of a job, and the changes that belong to it.

    `seq` numbers the jobs in the order of adding. `epoch` matters only if several services share a
    journal: it is the epoch in which the writer owns the endpoint.
    """

    seq: int
    job: Job
    epoch: int = 0
    request: bytes | None = None
    """The caller's request, set only for a new job."""
    output: bytes | None = None
    drops_output: bool = False
    """Whether to delete an earlier output; `output` implies it."""
    chunk_base: int | None = None
    """If set, the number of the next attempt's first chunk; 0 deletes the chunks written so far."""
    delivery: Delivery | None = None
    """If set, the webhook to send from now on."""
    drops_delivery: bool = False
    """Whether to delete the delivery of the webhook."""
    adds_to: Total | None = None
    """The total of the endpoint that grows by one."""

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
    """Deletes an ended job with its bodies and chunks, unless it has another `ended_at` because it was retried."""

    seq: int
    job_id: str
    ended_at: float
    epoch: int = 0


Record = JobRecord | ChunkRecord | ForgetRecord


class StoredJob(NamedTuple):
    """A job in the journal."""

    seq: int
    job: Job
    delivery: Delivery | None = None


class Snapshot(NamedTuple):
    """The contents of memory for a new process. `last_seq` is the highest number of all jobs, ended jobs included."""

    jobs: Iterable[StoredJob]
    """The jobs that have not ended, by `seq`; to be read once."""
    deliveries: list[Delivery]
    totals: Totals
    last_seq: int


class EndedJob(NamedTuple):
    """An ended job, as `find_ended` returns it."""

    seq: int
    job_id: str
    ended_at: float


Body = Literal["requests", "outputs"]


class Written(asyncio.Future[None]):
    """The outcome of an append.

    It cannot be cancelled, because the write cannot. A task that is cancelled while it awaits this ends when the
    outcome is known.
    """

    def cancel(self, msg: object = None) -> bool:
        return False


class Journal(Protocol):
    """Makes records durable and reads them back. All methods are called from one event loop.

    `keeps`: whether records can be read back. If not, reads return nothing, and everything must stay in memory.
    """

    @property
    def keeps(self) -> bool: ...

    def load(self, on_lost: Callable[[Collection[str]], None]) -> Snapshot:
        """Return the state that earlier processes wrote. Called once, before any other method.

        `on_lost` is called with the ids of jobs whose records could not be written, before the futures of these appends
        fail. The caller must then `read` these jobs again, because their versions in memory will never be written.
        """

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        """Write the records, in order, as one unit, after all earlier appends.

        The future resolves once they survive the death of the process, and a power cut if `durable`. It fails with
        StoreUnavailable if they were not written, or possibly not. After a failed record, every later record of the
        same job that was appended before the call of `on_lost` fails too, because it depends on the lost record.
        """

    def read(self, job_id: str) -> StoredJob | None:
        """Return the written job, or None. Reads one job on the event loop, without waiting for other work."""

    async def body(self, kind: Body, job_id: str) -> bytes | None:
        """Return the written request or output of the job, or None."""

    def chunk_range(self, job_id: str) -> tuple[int, int]:
        """Return the number of the running attempt's first chunk, and the number of written chunks."""

    def chunks(self, job_id: str, start: int, stop: int) -> list[bytes]:
        """Return the written chunks `start` to `stop - 1`, in order."""

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        """Return at most `limit` jobs that ended before this time and have no webhook to send, oldest end first."""

    async def close(self) -> None:
        """Finish running writes, and close files. Later appends fail."""
