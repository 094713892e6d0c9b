"""The journal for one machine: an SQLite file, written by the thread of `writer`, read through two connections."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.log import log_errors
from runpod_worker.service.journal.database import DatabaseSink, open_file
from runpod_worker.service.journal.port import (
    TOTALS,
    Body,
    Delivery,
    EndedJob,
    Record,
    Snapshot,
    StoredJob,
    Totals,
    Written,
)
from runpod_worker.service.journal.schema import decode_job
from runpod_worker.service.journal.writer import Writer

_JOB = "SELECT seq, meta, tries, next_at FROM jobs LEFT JOIN deliveries USING (seq) "
_DELIVERIES = "SELECT seq, meta, tries, next_at FROM deliveries JOIN jobs USING (seq) ORDER BY seq"
_CHUNK_RANGE = (
    "SELECT chunk_base, (SELECT coalesce(max(number) + 1, 0) FROM chunks WHERE chunks.seq = jobs.seq) "
    "FROM jobs WHERE id = ?"
)
_CHUNKS = "SELECT body FROM chunks JOIN jobs USING (seq) WHERE id = ? AND number >= ? AND number < ? ORDER BY number"
_ENDED = (
    "SELECT seq, id, ended_at FROM jobs WHERE sync = ? AND ended_at < ? "
    "AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.seq = jobs.seq) ORDER BY ended_at LIMIT ?"
)


class SqliteJournal:
    """A `Journal` in one SQLite file.

    Args:
        path: the file. A missing file or folder is created.

    Raises:
        StoreUnavailable: another process uses the file, a newer release wrote it, or it cannot be read.
    """

    keeps = True

    def __init__(self, path: Path | str) -> None:
        with ExitStack() as files:
            writer, self._thread_reader, self._loop_reader = open_file(Path(path), 3, files)
            self._files = files.pop_all()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        self._on_lost: Callable[[Collection[str]], None] | None = None
        self._writer = Writer(DatabaseSink(writer), self._lose)

    def load(self, on_lost: Callable[[Collection[str]], None]) -> Snapshot:
        self._on_lost = on_lost
        read = self._loop_reader.execute
        jobs = _readable(read(_JOB + "WHERE sync IN (0, 1) AND ended_at IS NULL ORDER BY seq"))
        deliveries = _readable(read(_DELIVERIES))
        totals = Totals()
        for endpoint, *numbers in read(f"SELECT endpoint, {', '.join(TOTALS)} FROM counters"):  # noqa: S608 - constants
            totals.update({(endpoint, total): number for total, number in zip(TOTALS, numbers, strict=True)})
        last_seq = read("SELECT coalesce(max(seq), 0) FROM jobs").fetchone()[0]
        return Snapshot(jobs, [job.delivery for job in deliveries if job.delivery is not None], totals, last_seq)

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        return self._writer.append(records, durable=durable)

    def read(self, job_id: str) -> StoredJob | None:
        rows = _read(self._loop_reader, _JOB + "WHERE id = ?", job_id)
        return _stored(rows[0]) if rows else None

    async def body(self, kind: Body, job_id: str) -> bytes | None:
        rows = await self._read_in_thread(f"SELECT body FROM {kind} JOIN jobs USING (seq) WHERE id = ?", job_id)  # noqa: S608
        return rows[0][0] if rows else None

    def chunk_range(self, job_id: str) -> tuple[int, int]:
        return next(iter(_read(self._loop_reader, _CHUNK_RANGE, job_id)), (0, 0))

    def chunks(self, job_id: str, start: int, stop: int) -> list[bytes]:
        return [body for (body,) in _read(self._loop_reader, _CHUNKS, job_id, start, stop)]

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        return [EndedJob(*row) for row in await self._read_in_thread(_ENDED, sync, before, limit)]

    async def close(self) -> None:
        await self._writer.close()
        await asyncio.to_thread(self._reader.shutdown)
        self._files.close()

    def _lose(self, job_ids: Collection[str]) -> None:
        if self._on_lost is not None:
            self._on_lost(job_ids)

    async def _read_in_thread(self, select: str, *values: str | float) -> list[tuple[Any, ...]]:
        """Read in the reader's thread, so that a large body neither blocks the loop nor waits for the writer."""
        read = partial(_read, self._thread_reader, select, *values)
        return await asyncio.get_running_loop().run_in_executor(self._reader, read)


def _read(database: sqlite3.Connection, select: str, *values: str | float) -> list[tuple[Any, ...]]:
    try:
        return database.execute(select, values).fetchall()
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"the store cannot be read: {exc}") from exc


def _readable(rows: Iterable[tuple[Any, ...]]) -> Iterator[StoredJob]:
    """The jobs in the rows, without those that cannot be decoded, which stay in the file."""
    for seq, *columns in rows:
        stored = None
        with log_errors("load", seq=seq):
            stored = _stored((seq, *columns))
        if stored is not None:
            yield stored


def _stored(row: tuple[int, str, int | None, float | None]) -> StoredJob:
    seq, meta, tries, next_at = row
    job = decode_job(meta)
    if tries is None or next_at is None or job.webhook is None:
        return StoredJob(seq, job)
    return StoredJob(seq, job, Delivery(job_id=job.id, url=job.webhook, tries=tries, next_at=next_at))
