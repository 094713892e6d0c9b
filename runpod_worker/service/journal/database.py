"""An SQLite file: its connections, and the transaction for a group of records."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.service.journal.lock import lock
from runpod_worker.service.journal.port import (
    TOTALS,
    ChunkRecord,
    ForgetRecord,
    JobRecord,
    Record,
    Totals,
)
from runpod_worker.service.journal.schema import encode_job, prepare
from runpod_worker.system import create_private, make_private_folder

_CHECKPOINT_PAGES = 4000
"""The write-ahead log grows to 16 MB before a checkpoint, because a checkpoint costs the writer an fsync."""

_ROWS_PER_STATEMENT = (64, 8, 1)
"""One statement for many rows releases the GIL once, not once per row. A busy event loop is slow to release it."""

_FORGET = [
    f"DELETE FROM {table} WHERE seq = (SELECT seq FROM jobs WHERE seq = ? AND ended_at = ?)"  # noqa: S608 - constants
    for table in ("requests", "outputs", "chunks", "jobs")
]
"""Each deletes a part of a job, unless the job was retried since it was read."""

_COUNT = (
    "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT (endpoint) DO UPDATE SET completed = completed + "
    "excluded.completed, failed = failed + excluded.failed, retried = retried + excluded.retried"
)

Value = str | bytes | int | float | None
Statement = tuple[str, tuple[Value, ...]]


def open_file(path: Path, count: int, release: ExitStack) -> list[sqlite3.Connection]:
    """Open the file for this process, and return `count` connections; `release` closes them and the lock.

    Raises:
        StoreUnavailable: another process uses the file, a newer release wrote it, or it cannot be opened.
    """
    try:
        make_private_folder(path.parent)
        release.enter_context(lock(path))
        connections = [release.enter_context(closing(connect(path))) for _ in range(count)]
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"{path} cannot be opened as a job store: {exc}") from exc
    prepare(connections[0], path, locked=True)
    return connections


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode. Only one thread at a time may use it.

    A new file, and those that SQLite puts beside it, can be read by this user only.
    """
    create_private(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


class Batch:
    """The rows to write for a group of records. Of several versions of a job it holds only the last."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.jobs: dict[int, Job] = {}
        self.requests: dict[int, bytes] = {}
        self.outputs: dict[int, bytes] = {}
        self.chunks: dict[tuple[int, int], bytes] = {}
        self.totals = Totals()
        self.deletes: list[Statement] = []
        """Run before the rows are written."""
        self.changes: list[Statement] = []
        """Run after that."""
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        match record:
            case JobRecord():
                self._add_job(record)
            case ChunkRecord():
                numbers = range(record.start, record.start + len(record.chunks))
                self.chunks.update(zip([(record.seq, number) for number in numbers], record.chunks, strict=True))
            case ForgetRecord():
                self.deletes += [(statement, (record.seq, record.ended_at)) for statement in _FORGET]

    def _add_job(self, record: JobRecord) -> None:
        seq = record.seq
        self.jobs[seq] = record.job
        if record.request is not None:
            self.requests[seq] = record.request
        if record.output is not None:
            self.outputs[seq] = record.output
        elif record.drops_output:
            self.outputs.pop(seq, None)
            self.deletes.append(("DELETE FROM outputs WHERE seq = ?", (seq,)))
        if record.chunk_base == 0:
            self.chunks = {place: body for place, body in self.chunks.items() if place[0] != seq}
            self.deletes.append(("DELETE FROM chunks WHERE seq = ?", (seq,)))
        if record.chunk_base is not None:
            self.changes.append(("UPDATE jobs SET chunk_base = ? WHERE seq = ?", (record.chunk_base, seq)))
        if record.drops_delivery:
            self.changes.append(("DELETE FROM deliveries WHERE seq = ?", (seq,)))
        if record.delivery is not None:
            put = "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?)"
            self.changes.append((put, (seq, record.delivery.tries, record.delivery.next_at)))
        if record.adds_to is not None:
            self.totals[record.job.endpoint, record.adds_to] += 1


class DatabaseSink:
    """Turns groups of records into transactions, in the writer's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._durable: bool | None = None

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        batch = Batch(records)
        self._set_durable(durable)
        with self._connection:  # commits, or rolls back after an error, unless SQLite has done so itself
            self._connection.execute("BEGIN IMMEDIATE")
            self._write(batch)

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:  # NORMAL does not wait for the disk: it survives our death, not a power cut
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _write(self, batch: Batch) -> None:
        for statement, values in batch.deletes:
            self._connection.execute(statement, values)
        self._insert(
            "jobs",
            8,
            "ON CONFLICT (seq) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at, "
            "meta = excluded.meta",
            [
                (seq, job.id, job.endpoint, job.status, job.sync, job.ended_at, 0, encode_job(job))
                for seq, job in batch.jobs.items()
            ],
        )
        self._insert("requests", 2, "", list(batch.requests.items()))
        update_body = "ON CONFLICT (seq) DO UPDATE SET body = excluded.body"
        self._insert("outputs", 2, update_body, list(batch.outputs.items()))
        self._insert("chunks", 3, "", [(*place, body) for place, body in batch.chunks.items()])
        for statement, values in batch.changes:
            self._connection.execute(statement, values)
        for (endpoint, total), number in batch.totals.items():
            self._connection.execute(_COUNT, (endpoint, *(number if total == each else 0 for each in TOTALS)))

    def _insert(self, table: str, width: int, tail: str, rows: Sequence[tuple[Value, ...]]) -> None:
        start = 0
        while start < len(rows):
            size = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
            places = ", ".join([f"({', '.join('?' * width)})"] * size)
            values = [value for row in rows[start : start + size] for value in row]
            self._connection.execute(f"INSERT INTO {table} VALUES {places} {tail}", values)  # noqa: S608 - constants
            start += size
