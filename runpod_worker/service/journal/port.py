"""The port to persistence. The docstrings are the contract.

`tests/service/test_store_contract.py` holds every store to it.

A store holds no rule about a job's status: it keeps what `core.lifecycle.apply` made. Bodies are opaque bytes.
Every method that writes returns only once the write survives `kill -9` of the process and a power cut; what one method
writes appears as a whole or not at all. Awaited reads, `chunks` and `deliveries` never show a write that could still be
lost. The other reads serve rules and show the newest version; what is decided on a write that is lost is lost with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runpod_worker.core.job import Job

HOLD_S = 300.0
"""A webhook that was handed out comes again after this time if nothing was heard of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Jobs of one endpoint: the first two are gauges, the others only grow."""

    in_queue: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook that is still owed: an outbox row. The body is built from the job when it is sent."""

    job_id: str
    url: str
    tries: int
    next_at: float


class Store(Protocol):
    """Jobs, their bodies and chunks, and the webhooks still owed."""

    async def add(self, job: Job, request: bytes, *, durable: bool = True) -> None:
        """Keep a new job (in any status: it may have been taken at birth) and the caller's request body.

        Without `durable` a power cut may still take the job back, until `secure` or the job's end: for callers who are
        told nothing before that.

        Raises:
            StoreUnavailable: nothing was written.
            ValueError: a job of this id exists.
        """

    def get(self, job_id: str) -> Job | None:
        """The newest version of the job, at once, even if its write is still under way. For rules, not for callers."""

    async def settled(self, job_id: str) -> Job | None:
        """The job as it is safely stored: what a caller may be told. Waits for a write that is under way."""

    async def secure(self, job_id: str) -> None:
        """Return once the job survives a power cut as it is now.

        Raises:
            StoreUnavailable: it does not.
        """

    async def request(self, job_id: str) -> bytes | None:
        """The request body given to `add`."""

    async def output(self, job_id: str) -> bytes | None:
        """The output (JSON) of the latest swap that gave one; None when there is none."""

    async def swap(self, old: Job, new: Job, *, output: bytes | None = None, drop_output: bool = False) -> bool:
        """Replace `old` by `new` if the newest version is still `old.version`.

        `output` is kept beside the job (`drop_output` forgets what was there). When `new` is final and has a webhook,
        its Delivery row (tries 0, due at once) is written with it; when `new` has left a final status, the row is
        removed and the chunks are dropped. The decision is made at once, in memory, before the first await, so two
        swaps of one version never both win; True is returned once it is on disk. False: somebody was faster; nothing
        was written.

        Not durable against a power cut (only against the process's death) when neither `old` nor `new` is final and no
        output is given: a lost take or beat is repaired by the lease.
        """

    def head(self, endpoint: str, limit: int) -> list[Job]:
        """The next jobs IN_QUEUE: normal priority before low, then by `created_at`, then in the order of adding."""

    def counts(self, endpoint: str) -> Counts:
        """How many jobs the endpoint has, by state."""

    def endpoints(self) -> set[str]:
        """Every endpoint that has, or ever had, a job."""

    def queued(self, endpoint: str) -> list[Job]:
        """All jobs IN_QUEUE of the endpoint, in the order of `head`."""

    def leased(self, worker: str) -> list[Job]:
        """All jobs this worker holds a lease on."""

    def overdue(self, now: float) -> list[Job]:
        """Jobs that time has something to say about: their `due_at` is not after `now` (`core.lifecycle.due` tells the
        event). Each job once, earliest first."""

    def next_due(self) -> float | None:
        """The earliest time at which `overdue` could have something, None when nothing can become due."""

    async def forget(self, ended_before: float, sync_ended_before: float) -> int:
        """Delete final jobs (with bodies, chunks; not while a Delivery is owed) that ended before these times."""

    async def append(self, job_id: str, index: int, chunks: list[bytes]) -> int:
        """Add the chunks with numbers `index`, `index + 1`, ...; those already there are dropped. Returns the number of
        chunks the job has now. Durable against the process's death only (the final result is what a 200 promises).

        Raises:
            ValueError: `index` would leave a gap.
            JobNotFound: there is no such job.
        """

    def chunks(self, job_id: str, start: int) -> list[bytes]:
        """The chunks from number `start` on, in order."""

    async def deliveries(self, now: float, limit: int, hold_s: float = HOLD_S) -> list[Delivery]:
        """The webhooks due at `now`, oldest first, handed out: none comes again before `now + hold_s`, unless its row
        changes. Only this process remembers the hold; after a restart they are due as they were."""

    def next_delivery(self) -> float | None:
        """When `deliveries` will have something next."""

    async def settle(self, delivery: Delivery) -> None:
        """The webhook was delivered, or given up: remove its row, unless the job has ended anew since."""

    async def postpone(self, delivery: Delivery, next_at: float) -> None:
        """One more try was made and failed: tries + 1, due at `next_at`; nothing if the row has changed since."""

    async def close(self) -> None:
        """Finish what is under way and release files."""
