"""A queue over each journal, and jobs to put into it."""

import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Event
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.journal.port import Delivery, Journal
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings

MakeJob = Callable[..., Job]


class Store:
    """One decision a commit: the shortest way for tests to change jobs and to read them."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        self.index = queue.jobs.index

    async def add(self, job: Job, request: bytes = b"{}", *, durable: bool = True) -> Job:
        transaction = Transaction(self.queue.jobs)
        transaction.add(job, request)
        await transaction.commit(durable=durable)
        return job

    async def step(self, job: Job | str, event: Event, *, output: bytes | None = None) -> Job:
        transaction = Transaction(self.queue.jobs)
        new = transaction.apply(job if isinstance(job, str) else job.id, event, output=output)
        await transaction.commit()
        return new

    async def add_chunks(self, job_id: str, index: int | None, chunks: list[bytes]) -> int:
        transaction = Transaction(self.queue.jobs)
        count = transaction.add_chunks(job_id, chunks, index)
        await transaction.commit(durable=False)
        return count

    async def committed(self, job_id: str) -> Job | None:
        return await self.queue.jobs.get_committed(job_id)

    def chunks(self, job_id: str, start: int = 0) -> list[bytes]:
        if self.queue.jobs.get(job_id) is None:
            return []
        log = self.queue.jobs.logs.of(job_id)
        return self.queue.jobs.logs.written(log, start)

    async def forget(self, ended_before: float, sync_ended_before: float) -> int:
        forgotten = await self.queue.sweep.forget(ended_before, sync=False)
        return forgotten + await self.queue.sweep.forget(sync_ended_before, sync=True)

    def due_deliveries(self, now: float, limit: int, hold_s: float = 300.0) -> list[Delivery]:
        return self.queue.jobs.deliveries.take_due(now, limit, hold_s)


@pytest.fixture(params=["null", "sqlite", "sqlite-cold"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobQueue]:
    """A queue over each journal in turn, empty; the cold one reads nearly every job that ended back from its file."""
    journal: Journal = NullJournal() if request.param == "null" else SqliteJournal(tmp_path / "store" / "jobs.db")
    recent: dict[str, Any] = {"max_recent": 1} if request.param == "sqlite-cold" else {}
    yield JobQueue(journal, ServiceSettings(), now=time.time, **recent)
    await journal.close()


@pytest.fixture
def store(queue: JobQueue) -> Store:
    """The shortest way to change jobs of `queue`."""
    return Store(queue)


@pytest.fixture
def store_of() -> type[Store]:
    """Makes the same for another queue."""
    return Store


@pytest.fixture
def make_job() -> MakeJob:
    """A new job IN_QUEUE, created one second after the one before it."""
    numbers = itertools.count(1)

    def make(**changes: Any) -> Job:
        number = next(numbers)
        times = {"created_at": 1000.0 + number, "queued_at": 1000.0 + number}
        return Job(**({"id": f"job-{number}", "endpoint": "ep"} | times | changes))

    return make
