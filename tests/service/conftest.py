"""Every store behind one fixture, and jobs to put into it."""

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.core.lifecycle import Job
from runpod_worker.service.store import Store
from runpod_worker.service.stores.memory import MemoryStore
from runpod_worker.service.stores.sqlite import SqliteStore

MakeJob = Callable[..., Job]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each store in turn, empty."""
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store" / "jobs.db")
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
