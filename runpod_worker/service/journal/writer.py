"""Writes records in groups, in one thread, with one commit per group.

1. Memory decides first. Records are appended here in the order of the decisions.
2. The thread takes every append that has arrived, writes them in one database transaction, and reports the group to the
   event loop by one call. It has no timer: a group consists of the appends that arrived during the last commit.
3. If a group fails, its appends are written one by one, so that only the failing append is lost. Queued appends of the
   same jobs depend on the lost decisions, and are refused.
4. The loop reads these jobs again. Each append carries the number of failures that the loop had handled at that time,
   so that the thread knows whether the append was decided before or after the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.log import log, log_errors
from runpod_worker.service.journal.port import ChunkRecord, JobRecord, Record, Written

MAX_GROUP_APPENDS = 512
MAX_GROUP_BYTES = 32 * 2**20
"""A group ends at either limit, so that small appends do not wait long for large ones."""


class Append:
    """Records to write as one unit, and their outcome."""

    __slots__ = ("durable", "error", "failures_seen", "records", "size", "written")

    def __init__(self, records: Sequence[Record], *, durable: bool, failures_seen: int = 0) -> None:
        self.records = records
        self.durable = durable
        self.failures_seen = failures_seen
        self.size = sum(map(_size, records))
        self.error: Exception | None = None
        self.written = Written()

    def settle(self) -> None:
        """Set the result of `written`."""
        if self.error is None:
            self.written.set_result(None)
        else:
            failure = StoreUnavailable(f"the store cannot write: {self.error}")
            failure.__cause__ = self.error
            self.written.set_exception(failure)


class Sink(Protocol):
    """Writes groups of records. Only the writer's thread uses it."""

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        """Write the records in one transaction, or raise and write none."""


class GroupWriter:
    """Writes groups, and finds the appends that fail. Synchronous; runs in the writer's thread."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lost: dict[str, int] = {}
        """The number of the failure that lost a record of each job."""
        self.failures = 0

    def write(self, group: Sequence[Append]) -> set[str]:
        """Write the appends, each completely or not at all, and set the errors of failed appends.

        Returns:
            The jobs that the loop must read again.
        """
        self._prune(group[0].failures_seen)
        good = [append for append in group if not self._is_refused(append)] if self._lost else group
        if len(good) == len(group) and self._commit(group) is None:
            return set()
        lost: set[str] = set()
        self.failures += 1
        for append in group:
            if self._is_refused(append):
                append.error = StoreUnavailable("an earlier write to the same job failed")
            else:
                append.error = self._commit([append])
            if append.error is not None:
                lost |= self._lose(append)
        return lost

    def _commit(self, appends: Sequence[Append]) -> Exception | None:
        records = [record for append in appends for record in append.records]
        try:
            self._sink.write(records, durable=any(append.durable for append in appends))
        except Exception as exc:  # callers get any error, and the thread continues
            log.warning("store.write_failed", extra={"writes": len(appends), "error": repr(exc)})
            return exc
        return None

    def _is_refused(self, append: Append) -> bool:
        return any(append.failures_seen < self._lost.get(record.job_id, 0) for record in append.records)

    def _lose(self, append: Append) -> set[str]:
        """Mark the append's jobs to be read again, and return them. Skips jobs whose read is already pending."""
        jobs = {record.job_id for record in append.records}
        lost = {job_id for job_id in jobs if append.failures_seen >= self._lost.get(job_id, 0)}
        for job_id in lost:
            self._lost[job_id] = self.failures
        return lost

    def _prune(self, failures_seen: int) -> None:
        """Drop the failures that the loop has handled: every later append was decided after them."""
        if self._lost:
            self._lost = {job_id: number for job_id, number in self._lost.items() if number > failures_seen}


class Writer:
    """Passes appends to the thread, and their outcomes back to the event loop.

    Args:
        sink: writes the records.
        on_lost: called with the jobs that must be read again, before the appends fail.
    """

    def __init__(self, sink: Sink, on_lost: Callable[[Collection[str]], None]) -> None:
        self._on_lost = on_lost
        self._groups = GroupWriter(sink)
        self._queue: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failures_seen = 0
        self._closed = False

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        """See `Journal.append`."""
        append = Append(records, durable=durable, failures_seen=self._failures_seen)
        if self._closed:
            append.error = StoreUnavailable("the journal is closed")
            append.settle()
            return append.written
        if self._thread is None:
            self._thread = self._start()
        self._queue.put(append)
        return append.written

    async def close(self) -> None:
        """Finish running appends, then end the thread."""
        if self._closed or self._thread is None:
            self._closed = True
            return
        last = self.append([], durable=False)
        self._closed = True
        await last  # its outcome is reported after all others
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _start(self) -> threading.Thread:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=(loop,), name="journal-writer")
        thread.daemon = True  # a program that ends without close() must not hang, and acknowledged appends are on disk
        thread.start()
        return thread

    def _settle(self, group: Sequence[Append], lost: Collection[str], failures: int) -> None:
        """On the loop: let lost jobs be read again, then set the results."""
        if lost:
            with log_errors("read again"):
                self._on_lost(lost)
        self._failures_seen = failures
        for append in group:
            append.settle()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: write groups until the end."""
        while group := self._next_group():
            try:
                lost = self._groups.write(group)
            except Exception as exc:  # without this thread no job could be written
                log.exception("store.write_failed", extra={"writes": len(group), "error": repr(exc)})
                lost = {record.job_id for append in group for record in append.records}
                for append in group:
                    append.error = exc
            with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits
                loop.call_soon_threadsafe(self._settle, group, lost, self._groups.failures)

    def _next_group(self) -> list[Append]:
        """The appends that have arrived, up to the limits; empty at the end."""
        append = self._queue.get()
        group: list[Append] = []
        size = 0
        while append is not None:
            group.append(append)
            size += append.size
            if len(group) >= MAX_GROUP_APPENDS or size >= MAX_GROUP_BYTES:
                break
            try:
                append = self._queue.get_nowait()
            except queue.Empty:
                break
        return group


def _size(record: Record) -> int:
    match record:
        case JobRecord():
            return len(record.request or b"") + len(record.output or b"")
        case ChunkRecord():
            return sum(map(len, record.chunks))
        case _:
            return 0
