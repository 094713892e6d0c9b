"""The chunks of jobs: which are written, read, and in memory.

Readers get each chunk once, and only written chunks. A restart loses the position of readers, so a reader may get some
chunks again.
"""

from __future__ import annotations

from collections import OrderedDict

from runpod_worker.service.journal.port import Journal

MAX_REPLY_BYTES = 16 * 2**20
"""A reply ends before it exceeds this; the reader gets the other chunks with its next call."""

MAX_LOGS = 50_000
"""Positions of readers are kept for this number of jobs; those of the least recently used are dropped first."""

MAX_MEMORY_BYTES = 64 * 2**20
"""Above this, written chunks are dropped from memory until half is free; readers get them from the journal."""


class ChunkLog:
    """The chunks of a job, as five numbers.

    `base`: the first chunk of the running attempt; those before belong to lost attempts. `read`: the number of read
    chunks. `first`: chunks before it are only in the journal. `written`: chunks before it are in the journal.
    `count`: the number of chunks, including those that are being written.
    """

    __slots__ = ("base", "count", "first", "job_id", "read", "recent", "written")

    def __init__(self, job_id: str, base: int, count: int) -> None:
        self.job_id = job_id
        self.base = self.read = base
        self.first = self.written = self.count = count
        self.recent: list[bytes] = []


class ChunkLogs:
    """The logs of the jobs that stream. `MAX_MEMORY_BYTES` limits all of them together."""

    def __init__(self, journal: Journal, *, max_bytes: int = MAX_MEMORY_BYTES, max_logs: int = MAX_LOGS) -> None:
        self._journal = journal
        self._max_bytes = max_bytes
        self._max_logs = max_logs
        self._bytes = 0
        self._logs: OrderedDict[str, ChunkLog] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logs)

    def of(self, job_id: str) -> ChunkLog:
        """Return the log of the job."""
        log = self._logs.get(job_id)
        if log is None:
            log = self._logs[job_id] = ChunkLog(job_id, *self._journal.chunk_range(job_id))
            self._forget_oldest()
        else:
            self._logs.move_to_end(job_id)
        return log

    def add(self, job_id: str, chunks: list[bytes], index: int | None) -> tuple[int, list[bytes]]:
        """Add chunks of the running attempt, starting with its chunk `index` (None: append).

        Returns:
            The number of the first new chunk, and the new chunks; chunks that the log has are dropped.
        """
        log = self.of(job_id)
        start = log.count
        fresh = chunks if index is None else chunks[start - min(log.base + index, start) :]
        log.recent += fresh
        log.count += len(fresh)
        self._bytes += _bytes(fresh)
        return start, fresh

    def on_written(self, log: ChunkLog, count: int) -> None:
        """Record that the first `count` chunks of the log are in the journal."""
        log.written = max(log.written, count)
        if self._bytes > self._max_bytes and self._journal.keeps:
            self._evict()

    def read(self, job_id: str) -> tuple[list[bytes], bool]:
        """Mark unread chunks as read, and return them, and whether these are all."""
        log = self.of(job_id)
        unread = self.written(log, log.read)
        size, count = 0, 0
        for chunk in unread:
            size += len(chunk)
            if count and size > MAX_REPLY_BYTES:
                break
            count += 1
        log.read += count
        return unread[:count], count == len(unread)

    def unread(self, job_id: str, count: int) -> None:
        """Mark the last `count` chunks as unread, because they did not reach their reader."""
        log = self.of(job_id)
        log.read = max(0, log.read - count)

    def latest(self, job_id: str) -> list[bytes]:
        """Return all chunks of the latest attempt, read and unread."""
        log = self.of(job_id)
        return self.written(log, log.base)

    def restart(self, job_id: str) -> int | None:
        """Drop the unread chunks of a lost attempt.

        Returns the number of the next attempt's first chunk; None for a job without chunks.
        """
        log = self.of(job_id)
        log.base = log.read = log.count
        return log.base or None

    def reset(self, job_id: str) -> None:
        """Start again without chunks, for a job that is retried."""
        self.drop(job_id)
        self._logs[job_id] = ChunkLog(job_id, 0, 0)

    def drop(self, job_id: str) -> None:
        """Drop the log from memory; written chunks stay in the journal."""
        log = self._logs.pop(job_id, None)
        if log is not None:
            self._bytes -= _bytes(log.recent)

    def written(self, log: ChunkLog, start: int) -> list[bytes]:
        """Return the written chunks from number `start` on."""
        older = self._journal.chunks(log.job_id, start, log.first) if start < log.first else []
        return older + log.recent[max(0, start - log.first) : max(0, log.written - log.first)]

    def _evict(self) -> None:
        for log in self._logs.values():
            self._bytes -= _bytes(log.recent[: log.written - log.first])
            del log.recent[: log.written - log.first]
            log.first = log.written
            if self._bytes <= self._max_bytes // 2:
                return

    def _forget_oldest(self) -> None:
        if len(self._logs) <= self._max_logs or not self._journal.keeps:
            return
        job_id, log = next(iter(self._logs.items()))
        if log.written == log.count:
            self.drop(job_id)
        else:
            self._logs.move_to_end(job_id)  # its chunks are still being written; the next call tries the log after it


def _bytes(chunks: list[bytes]) -> int:
    return sum(map(len, chunks))
