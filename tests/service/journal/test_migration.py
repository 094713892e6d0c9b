"""A database of release 0.1 is brought forward: wholly, in one transaction, by the process that has its lock.

That every job looks as before is in tests/upgrade/test_samples.py.
"""

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import FailureKind, Job
from runpod_worker.service.journal import schema
from runpod_worker.service.journal.database import connect
from runpod_worker.service.journal.lock import lock
from runpod_worker.service.journal.schema import SCHEMA_VERSION, decode_job, prepare

SAMPLE = Path(__file__).parents[2] / "data" / "0.1" / "service" / "jobs.sqlite"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLE, tmp_path / "jobs.sqlite"))


def select(path: Path, statement: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def migrate(path: Path) -> None:
    connection = connect(path)
    try:
        prepare(connection, path)
    finally:
        connection.close()


def test_every_job_is_as_it_was_and_failures_have_their_kind(path):
    before = {seq: msgspec.msgpack.decode(meta, type=Job) for seq, meta in select(path, "SELECT seq, meta FROM jobs")}

    migrate(path)

    rows = select(path, "SELECT seq, id, endpoint, status, sync, ended_at, chunk_base, meta FROM jobs")
    assert len(rows) == len(before) > 5
    failures = set()
    for seq, job_id, endpoint, status, sync, ended_at, chunk_base, meta in rows:
        job, old = decode_job(meta), before[seq]
        assert (job_id, endpoint, status, bool(sync), ended_at, chunk_base) == (
            (job.id, job.endpoint, job.status, job.sync, job.ended_at, 0)
        )
        assert msgspec.structs.replace(job, failure=None) == old
        failures.add(job.failure)
    assert {FailureKind.HANDLER_ERROR, FailureKind.EXECUTION_TIMEOUT, FailureKind.WORKER_LOST, None} <= failures
    assert select(path, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]


def test_accounts_of_endpoints_are_as_they_were(path):
    before = select(path, "SELECT endpoint, account FROM owners ORDER BY 1")

    migrate(path)

    assert select(path, "SELECT endpoint, account FROM endpoint_accounts ORDER BY 1") == before != []


def test_all_that_belongs_to_jobs_is_as_it_was(path):
    tables = ("requests", "outputs", "chunks", "deliveries", "counters", "accounts", "keys")
    before = {table: select(path, f"SELECT * FROM {table}") for table in tables}

    migrate(path)

    assert {table: select(path, f"SELECT * FROM {table}") for table in tables} == before
    assert all(before.values())


def test_view_names_what_people_ask_for(path):
    migrate(path)

    rows = select(path, "SELECT id, endpoint, status, created, attempt, worker, error FROM job_view")
    assert {row[2] for row in rows} == {"IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}


def test_migration_that_dies_half_way_leaves_the_file_as_it_was(path, monkeypatch):
    before = select(path, "SELECT * FROM jobs")
    calls = iter(range(3))

    def encode(job: Job) -> str:
        next(calls)  # the fourth job raises
        return "{}"

    monkeypatch.setattr(schema, "encode_job", encode)
    with pytest.raises((StopIteration, RuntimeError, sqlite3.Error)):
        migrate(path)
    monkeypatch.undo()

    assert select(path, "SELECT * FROM jobs") == before
    migrate(path)
    assert select(path, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]


def test_file_that_a_service_of_0_1_uses_is_left_alone(path):
    with lock(path), pytest.raises(StoreUnavailable, match="in use by another process"):
        migrate(path)

    assert select(path, "SELECT version FROM schema_version") == [(1,)]


def test_current_file_is_opened_while_a_service_uses_it(path):
    migrate(path)

    with lock(path):
        migrate(path)

    assert select(path, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]
