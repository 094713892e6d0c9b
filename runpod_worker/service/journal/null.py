"""The journal that keeps nothing: jobs live in the memory of the queue, until the process ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from runpod_worker.service.journal.port import Body, EndedJob, Record, Snapshot, StoredJob, Totals, Written


class NullJournal:
    """A `Journal` for tests and for `dev`."""

    keeps = False

    def load(self, on_lost: Callable[[Collection[str]], None]) -> Snapshot:
        return Snapshot([], [], Totals(), 0)

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        written = Written()
        written.set_result(None)
        return written

    def read(self, job_id: str) -> StoredJob | None:
        return None

    async def body(self, kind: Body, job_id: str) -> bytes | None:
        return None

    def chunk_range(self, job_id: str) -> tuple[int, int]:
        return 0, 0

    def chunks(self, job_id: str, start: int, stop: int) -> list[bytes]:
        return []

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        return []

    async def close(self) -> None:
        """Do nothing, because the journal holds no resource."""
