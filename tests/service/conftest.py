"""Every store behind one fixture, and jobs to put into it."""

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.core.job import Job
from runpod_worker.service.journal.memory import MemoryStore
from runpod_worker.service.journal.port import Store
from runpod_worker.service.journal.sqlite import SqliteStore

MakeJob = Callable[..., Job]


@pytest.fixture(params=["memory", "sqlite", "sqlite-cold"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each store in turn, empty; the cold one reads nearly every job that ended back from its file."""
    path = tmp_path / "store" / "jobs.db"
    made: Store = MemoryStore()
    if request.param != "memory":
        made = SqliteStore(path, recent_jobs=1) if request.param == "sqlite-cold" else SqliteStore(path)
    yield made
    await made.close()


@pytest.fixture
def make_job() -> MakeJob:
    """A new job IN_QUEUE, created one second after the one before it."""
    numbers = itertools.count(1)

    def make(**changes: Any) -> Job:
        number = next(numbers)
        times = {"created_at": 1000.0 + number, "queued_at": 1000.0 + number}
        return Job(**({"id": f"job-{number}", "endpoint": "ep"} | times | changes))

    return make
