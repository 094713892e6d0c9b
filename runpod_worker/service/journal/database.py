"""One SQLite file: its lock, its tables, and how a batch of writes becomes one transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import msgspec

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job
from runpod_worker.service.queue.index import Tally
from runpod_worker.system import lock_file

SCHEMA_VERSION = 1

ENDPOINT_ACCOUNTS = "owners"
"""The table of the accounts that endpoints belong to."""

_SCHEMA = f"""
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sync INTEGER NOT NULL, ended_at REAL, meta BLOB NOT NULL
);
CREATE INDEX jobs_ended ON jobs (sync, ended_at);
CREATE TABLE requests (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE outputs (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE chunks (seq INTEGER, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (seq, number)) WITHOUT ROWID;
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY, tries INTEGER NOT NULL, next_at REAL NOT NULL);
CREATE TABLE counters (
    endpoint TEXT PRIMARY KEY, completed INTEGER NOT NULL, failed INTEGER NOT NULL, retried INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE accounts (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE {ENDPOINT_ACCOUNTS} (endpoint TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts) WITHOUT ROWID;
CREATE TABLE keys (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts, label TEXT NOT NULL
) WITHOUT ROWID;
"""

_CHECKPOINT_PAGES = 4000
"""The write-ahead log grows to 16 MB before it is copied home: a checkpoint costs the writer one more fsync."""

_ROWS_A_STATEMENT = (64, 8, 1)
"""Several rows in one statement release the interpreter's lock once, not once each; a busy loop returns it late."""

encode_job = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode

Value = str | bytes | int | float | None


def lock(path: Path) -> TextIO:
    """Hold the file for this process until the returned file is closed.

    Raises:
        StoreUnavailable: another process has it.
    """
    held = path.with_name(path.name + ".lock").open("a+")
    try:
        lock_file(held.fileno())
    except BlockingIOError:
        held.seek(0)
        owner = held.read().strip() or "unknown"
        held.close()
        raise StoreUnavailable(
            f"{path} is in use by another process (id {owner}); a store file belongs to one service"
        ) from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held


def open_file(path: Path, release: ExitStack) -> tuple[sqlite3.Connection, sqlite3.Connection, sqlite3.Connection]:
    """Three connections to the file, for the writer's thread, the reader's thread and the loop; `release` closes the
    latter two and lets go of the lock.

    Raises:
        StoreUnavailable: another process has the file, a newer release wrote it, or it cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        release.enter_context(lock(path))
        writer, reader, glance = connect(path), connect(path), connect(path)
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"{path} cannot be opened as a job store: {exc}") from exc
    release.callback(reader.close)
    release.callback(glance.close)
    try:
        prepare(writer, path)
    except BaseException:
        writer.close()
        raise
    return writer, reader, glance


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; which thread uses it is the caller's affair."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in a new file.

    Raises:
        StoreUnavailable: a newer release wrote this file.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
        connection.executescript(
            f"BEGIN; {_SCHEMA} INSERT INTO schema_version VALUES ({SCHEMA_VERSION}); COMMIT;"  # noqa: S608 - constants
        )
    (version,) = connection.execute("SELECT version FROM schema_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{path} has schema version {version}, this release of runpod_worker knows up to {SCHEMA_VERSION}: "
            "start the newer release, or use another file"
        )


class Batch:
    """What the writes of one group leave behind: of several versions of a job only the last is written."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.requests: dict[int, bytes] = {}
        self.outputs: dict[int, bytes | None] = {}
        self.chunks: dict[tuple[int, int], bytes] = {}
        self.dropped_chunks: list[int] = []
        self.forgotten: list[tuple[int, float]] = []
        self.counters: dict[str, Tally] = {}
        self.statements: list[tuple[str, tuple[Value, ...]]] = []

    def count(self, endpoint: str, step: Tally) -> None:
        """Move the endpoint's counters."""
        known = self.counters.get(endpoint)
        self.counters[endpoint] = step if known is None else known.plus(step)

    def drop_chunks(self, seq: int) -> None:
        """Forget the chunks of the job that came before this point."""
        self.dropped_chunks.append(seq)
        for place in [place for place in self.chunks if place[0] == seq]:
            del self.chunks[place]


class DatabaseSink:
    """Turns batches into transactions, in the writer's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._durable: bool | None = None

    def batch(self) -> Batch:
        return Batch()

    def commit(self, batch: Batch, *, durable: bool) -> None:
        self._set_durable(durable)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._write(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have rolled back already
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:  # NORMAL leaves the write to the kernel: safe against our death, not the machine's
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _write(self, batch: Batch) -> None:
        run = self._connection.executemany
        if batch.forgotten:
            self._forget(batch.forgotten)
        if batch.dropped_chunks:
            run("DELETE FROM chunks WHERE seq = ?", [(seq,) for seq in batch.dropped_chunks])
        self._insert(
            "jobs",
            5,
            "ON CONFLICT (seq) DO UPDATE SET ended_at = excluded.ended_at, meta = excluded.meta",
            [(seq, job.id, job.sync, job.ended_at, encode_job(job)) for seq, job in batch.jobs.items()],
        )
        self._insert("requests", 2, "", list(batch.requests.items()))
        self._write_outputs(batch.outputs)
        self._insert("chunks", 3, "", [(*place, body) for place, body in batch.chunks.items()])
        for statement, values in batch.statements:
            self._connection.execute(statement, values)
        if batch.counters:
            run(
                "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT (endpoint) DO UPDATE SET completed = completed + "
                "excluded.completed, failed = failed + excluded.failed, retried = retried + excluded.retried",
                [(endpoint, *step) for endpoint, step in batch.counters.items()],
            )

    def _write_outputs(self, outputs: dict[int, bytes | None]) -> None:
        kept = [(seq, body) for seq, body in outputs.items() if body is not None]
        gone = [(seq,) for seq, body in outputs.items() if body is None]
        self._insert("outputs", 2, "ON CONFLICT (seq) DO UPDATE SET body = excluded.body", kept)
        if gone:
            self._connection.executemany("DELETE FROM outputs WHERE seq = ?", gone)

    def _insert(self, table: str, width: int, tail: str, rows: Sequence[tuple[Value, ...]]) -> None:
        start = 0
        while start < len(rows):
            size = next(size for size in _ROWS_A_STATEMENT if size <= len(rows) - start)
            places = ", ".join([f"({', '.join('?' * width)})"] * size)
            values = [value for row in rows[start : start + size] for value in row]
            self._connection.execute(f"INSERT INTO {table} VALUES {places} {tail}", values)  # noqa: S608 - constants
            start += size

    def _forget(self, forgotten: Iterable[tuple[int, float]]) -> None:
        """Delete these jobs with all they have, unless they went on living since somebody looked."""
        pairs = list(forgotten)
        still = "EXISTS (SELECT 1 FROM jobs WHERE seq = ?1 AND ended_at = ?2)"
        for table in ("requests", "outputs", "chunks"):
            self._connection.executemany(f"DELETE FROM {table} WHERE seq = ?1 AND {still}", pairs)  # noqa: S608
        self._connection.executemany("DELETE FROM jobs WHERE seq = ?1 AND ended_at = ?2", pairs)
