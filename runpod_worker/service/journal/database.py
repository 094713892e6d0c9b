"""An SQLite file: its connections, and the transaction for a group of records."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.service.journal.lock import lock
from runpod_worker.service.journal.port import (
    NO_DELTA,
    ChunkRecord,
    CounterDelta,
    ForgetRecord,
    JobRecord,
    Record,
)
from runpod_worker.service.journal.schema import encode_job, prepare

_CHECKPOINT_PAGES = 4000
"""The write-ahead log grows to 16 MB before a checkpoint, because a checkpoint costs the writer an fsync."""

_ROWS_PER_STATEMENT = (64, 8, 1)
"""One statement for many rows releases the GIL once, not once per row. A busy event loop is slow to release it."""

_DELIVERY_PUT = "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?)"
_DELIVERY_DROP = "DELETE FROM deliveries WHERE seq = ?"
_COUNT = (
    "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT (endpoint) DO UPDATE SET completed = completed + "
    "excluded.completed, failed = failed + excluded.failed, retried = retried + excluded.retried"
)

Value = str | bytes | int | float | None


class Connections(NamedTuple):
    """A connection each for the writer's thread, the reader's thread and the event loop."""

    writer: sqlite3.Connection
    thread_reader: sqlite3.Connection
    loop_reader: sqlite3.Connection


def open_file(path: Path, release: ExitStack) -> Connections:
    """Open the file for this process; `release` closes the readers and the lock.

    Raises:
        StoreUnavailable: another process uses the file, a newer release wrote it, or it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        release.enter_context(lock(path))
        connections = Connections(connect(path), connect(path), connect(path))
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"{path} cannot be opened as a job store: {exc}") from exc
    release.callback(connections.thread_reader.close)
    release.callback(connections.loop_reader.close)
    try:
        prepare(connections.writer, path, locked=True)
    except BaseException:
        connections.writer.close()
        raise
    return connections


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in autocommit mode. Only one thread at a time may use it."""
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
        self.chunk_bases: dict[int, int] = {}
        self.requests: dict[int, bytes] = {}
        self.outputs: dict[int, bytes | None] = {}
        self.chunks: dict[tuple[int, int], bytes] = {}
        self.dropped_chunks: list[tuple[int]] = []
        self.forgotten: list[tuple[int, float]] = []
        self.counters: dict[str, CounterDelta] = {}
        self.statements: list[tuple[str, tuple[Value, ...]]] = []
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
                self.forgotten.append((record.seq, record.ended_at))

    def _add_job(self, record: JobRecord) -> None:
        seq = record.seq
        self.jobs[seq] = record.job
        if record.request is not None:
            self.requests[seq] = record.request
        if record.output is not None or record.drops_output:
            self.outputs[seq] = record.output
        if record.drops_chunks:
            self._drop_chunks(seq)
        if record.drops_delivery:
            self.statements.append((_DELIVERY_DROP, (seq,)))
        if record.chunk_base is not None:
            self.chunk_bases[seq] = record.chunk_base
        if record.delivery is not None:
            self.statements.append((_DELIVERY_PUT, (seq, record.delivery.tries, record.delivery.next_at)))
        if record.delta is not NO_DELTA:
            self.counters[record.job.endpoint] = self.counters.get(record.job.endpoint, NO_DELTA).plus(record.delta)

    def _drop_chunks(self, seq: int) -> None:
        self.dropped_chunks.append((seq,))
        for place in [place for place in self.chunks if place[0] == seq]:
            del self.chunks[place]


class DatabaseSink:
    """Turns groups of records into transactions, in the writer's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._durable: bool | None = None

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        batch = Batch(records)
        self._set_durable(durable)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._write(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # with a full disk SQLite may have rolled back already
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:  # NORMAL does not wait for the disk: it survives our death, not a power cut
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _write(self, batch: Batch) -> None:
        run = self._connection.executemany
        if batch.forgotten:
            self._forget(batch.forgotten)
        if batch.dropped_chunks:
            run("DELETE FROM chunks WHERE seq = ?", batch.dropped_chunks)
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
        if batch.chunk_bases:
            run(
                "UPDATE jobs SET chunk_base = ? WHERE seq = ?", [(base, seq) for seq, base in batch.chunk_bases.items()]
            )
        self._insert("requests", 2, "", list(batch.requests.items()))
        self._write_outputs(batch.outputs)
        self._insert("chunks", 3, "", [(*place, body) for place, body in batch.chunks.items()])
        for statement, values in batch.statements:
            self._connection.execute(statement, values)
        if batch.counters:
            run(_COUNT, [(endpoint, *delta) for endpoint, delta in batch.counters.items()])

    def _write_outputs(self, outputs: dict[int, bytes | None]) -> None:
        kept = [(seq, body) for seq, body in outputs.items() if body is not None]
        dropped = [(seq,) for seq, body in outputs.items() if body is None]
        self._insert("outputs", 2, "ON CONFLICT (seq) DO UPDATE SET body = excluded.body", kept)
        if dropped:
            self._connection.executemany("DELETE FROM outputs WHERE seq = ?", dropped)

    def _insert(self, table: str, width: int, tail: str, rows: Sequence[tuple[Value, ...]]) -> None:
        start = 0
        while start < len(rows):
            size = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
            places = ", ".join([f"({', '.join('?' * width)})"] * size)
            values = [value for row in rows[start : start + size] for value in row]
            self._connection.execute(f"INSERT INTO {table} VALUES {places} {tail}", values)  # noqa: S608 - constants
            start += size

    def _forget(self, forgotten: Sequence[tuple[int, float]]) -> None:
        """Delete these jobs with their bodies and chunks, unless they were retried since they were read."""
        for table in ("requests", "outputs", "chunks"):
            unchanged = f"EXISTS (SELECT 1 FROM jobs WHERE jobs.seq = {table}.seq AND ended_at = ?)"  # noqa: S608
            self._connection.executemany(f"DELETE FROM {table} WHERE seq = ? AND {unchanged}", forgotten)  # noqa: S608
        self._connection.executemany("DELETE FROM jobs WHERE seq = ? AND ended_at = ?", forgotten)
