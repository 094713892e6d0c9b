"""Who has read how far in a job's chunks. The chunks are in the store; the marks are lost at a restart, which at worst
shows a reader some chunks a second time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from runpod_worker.service.journal.port import Store

REPLY_LIMIT = 16 * 2**20
"""Bytes of chunks in one reply; a reader gets the rest with its next call."""

MARKS_KEPT = 50_000
"""Jobs whose marks are remembered, those used last."""


@dataclass(slots=True)
class _Marks:
    base: int
    """How many chunks came from attempts that were lost: the next attempt counts from here."""
    have: int
    read: int = 0


class Streams:
    """The chunks of running and ended jobs, each given to readers once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: OrderedDict[str, _Marks] = OrderedDict()

    def __len__(self) -> int:
        return len(self._marks)

    async def append(self, job_id: str, chunks: list[bytes], index: int | None) -> None:
        """Add chunks of the running attempt; those with a number that is there already are dropped."""
        marks = self._of(job_id)
        at = marks.have if index is None else min(marks.base + index, marks.have)
        marks.have = max(marks.have, at + len(chunks))
        try:
            await self._store.append(job_id, at, chunks)
        except Exception:
            marks.have = len(self._store.chunks(job_id, 0))
            raise

    def read(self, job_id: str) -> tuple[list[bytes], bool]:
        """The chunks nobody has read yet, and whether that was all of them. They will not be read again."""
        marks = self._of(job_id)
        unread = self._store.chunks(job_id, marks.read)
        size, taken = 0, 0
        for chunk in unread:
            size += len(chunk)
            if taken and size > REPLY_LIMIT:
                break
            taken += 1
        marks.read += taken
        return unread[:taken], taken == len(unread)

    def latest(self, job_id: str) -> list[bytes]:
        """All chunks of the latest attempt, read or not."""
        return self._store.chunks(job_id, self._of(job_id).base)

    def unread(self, job_id: str, count: int) -> None:
        """The last `count` chunks did not reach their reader: the next one gets them."""
        marks = self._of(job_id)
        marks.read = max(0, marks.read - count)

    def restart(self, job_id: str) -> None:
        """The attempt was lost. What nobody has read of it is dropped; the next attempt follows on what was read."""
        marks = self._marks.get(job_id)
        if marks is not None or self._store.chunks(job_id, 0):
            marks = self._of(job_id)
            marks.base = marks.read = marks.have

    def forget(self, job_id: str) -> None:
        """The job starts anew, without chunks."""
        self._marks.pop(job_id, None)

    def _of(self, job_id: str) -> _Marks:
        marks = self._marks.get(job_id)
        if marks is None:
            marks = self._marks[job_id] = _Marks(base=0, have=len(self._store.chunks(job_id, 0)))
            if len(self._marks) > MARKS_KEPT:
                self._marks.popitem(last=False)
        else:
            self._marks.move_to_end(job_id)
        return marks
