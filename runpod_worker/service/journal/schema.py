"""The tables of the SQLite file, and the migration of files from earlier releases.

`job_view` is for people who use the `sqlite3` command; the service reads `jobs`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import infer_failure
from runpod_worker.service.journal.lock import lock

SCHEMA_VERSION = 2

ENDPOINT_ACCOUNTS = "endpoint_accounts"
"""The table of the account of each endpoint."""

_JOBS = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    sync INTEGER NOT NULL, ended_at REAL, chunk_base INTEGER NOT NULL, meta TEXT NOT NULL
);
CREATE INDEX jobs_ended ON jobs (sync, ended_at);
CREATE VIEW job_view AS SELECT
    id, endpoint, status,
    strftime('%Y-%m-%d %H:%M:%f', json_extract(meta, '$.created_at'), 'unixepoch') AS created,
    strftime('%Y-%m-%d %H:%M:%f', json_extract(meta, '$.taken_at'), 'unixepoch') AS taken,
    strftime('%Y-%m-%d %H:%M:%f', ended_at, 'unixepoch') AS ended,
    json_extract(meta, '$.attempt') AS attempt, json_extract(meta, '$.retries') AS retries,
    json_extract(meta, '$.worker') AS worker, json_extract(meta, '$.gpu') AS gpu,
    json_extract(meta, '$.failure') AS failure, json_extract(meta, '$.error') AS error,
    json_extract(meta, '$.webhook') AS webhook, sync
FROM jobs;
"""

_SCHEMA = (
    _JOBS
    + f"""
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE requests (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE outputs (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE chunks (seq INTEGER, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (seq, number)) WITHOUT ROWID;
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY, tries INTEGER NOT NULL, next_at REAL NOT NULL);
CREATE TABLE counters (
    endpoint TEXT PRIMARY KEY, completed INTEGER NOT NULL, failed INTEGER NOT NULL, retried INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE accounts (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE {ENDPOINT_ACCOUNTS} (
    endpoint TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts
) WITHOUT ROWID;
CREATE TABLE keys (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts, label TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO schema_version VALUES (0);
"""  # noqa: S608 - a constant
)

_encode = msgspec.json.Encoder().encode

decode_job = msgspec.json.Decoder(Job).decode
"""Returns the job in `jobs.meta`."""

_decode_1 = msgspec.msgpack.Decoder(Job).decode


def encode_job(job: Job) -> str:
    """Return the job as `jobs.meta` has it."""
    return _encode(job).decode()


def prepare(connection: sqlite3.Connection, path: Path, *, locked: bool = False) -> None:
    """Create the tables in a new file, or bring those of an earlier release forward, in one transaction.

    Args:
        connection: in autocommit mode.
        path: the file.
        locked: whether the caller holds the file's lock already.

    Raises:
        StoreUnavailable: a newer release wrote this file, or another process has it and its tables are not current.
    """
    version = _version(connection)
    if version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{path} has schema version {version}, this release of runpod_worker knows up to {SCHEMA_VERSION}: "
            "start the newer release, or use another file"
        )
    if not locked:
        with lock(path):
            prepare(connection, path, locked=True)
        return
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        _run(connection, _SCHEMA) if version == 0 else _migrate_1(connection)
        connection.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION,))


def _version(connection: sqlite3.Connection) -> int:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
        return 0
    return int(connection.execute("SELECT version FROM schema_version").fetchone()[0])


def _migrate_1(connection: sqlite3.Connection) -> None:
    """Version 1 (release 0.1) kept jobs as msgpack only, and named the accounts of endpoints `owners`."""
    connection.execute(f"ALTER TABLE owners RENAME TO {ENDPOINT_ACCOUNTS}")
    connection.execute("ALTER TABLE jobs RENAME TO jobs_1")
    connection.execute("DROP INDEX jobs_ended")
    _run(connection, _JOBS)
    connection.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, 0, ?)", _rows_1(connection))
    connection.execute("DROP TABLE jobs_1")


def _rows_1(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str, str, bool, float | None, str]]:
    for seq, meta in connection.execute("SELECT seq, meta FROM jobs_1"):
        job = _decode_1(meta)
        if job.status is Status.FAILED:
            job = replace(job, failure=infer_failure(job.error, attempt=job.attempt))
        yield seq, job.id, job.endpoint, job.status, job.sync, job.ended_at, encode_job(job)


def _run(connection: sqlite3.Connection, statements: str) -> None:
    """Run the statements within the transaction; `executescript` would commit it first."""
    for statement in statements.split(";\n"):
        connection.execute(statement)
