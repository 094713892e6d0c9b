"""A journal that cannot write: who is told, and that memory never says more than the disk."""

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Policy, Status
from runpod_worker.core.lifecycle import CancelRequested, Succeeded, Taken
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.index import Counts
from runpod_worker.service.queue.polls import TakeRequest
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.settings import ServiceSettings

LARGE = b"x" * (4 * 2**20)
HOOK = "https://receiver.example/"


@pytest.fixture
async def reopen(tmp_path, store_of):
    """Opens the database of this test; each call closes the one before it."""
    journals = []

    async def opened():
        if journals:
            await journals.pop().close()
        journals.append(SqliteJournal(tmp_path / "jobs.db"))
        return store_of(JobQueue(journals[0], ServiceSettings(), now=lambda: 2000.0))

    yield opened
    await journals[0].close()


@pytest.fixture
async def store(reopen):
    return await reopen()


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond `size` bytes: a disk that is full, for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def failures(*writes) -> list[type | None]:
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    return [type(outcome) if isinstance(outcome, Exception) else None for outcome in outcomes]


async def test_full_disk_fails_the_write_and_nothing_of_it_stays(store, reopen, make_job):
    first = await store.add(make_job())

    with no_file_above(2**20):
        job = make_job()
        with pytest.raises(StoreUnavailable):
            await store.add(job, LARGE)
        assert store.queue.jobs.get(job.id) is None
        assert store.index.head("ep", 9) == [first]
        assert store.index.counts("ep") == Counts(in_queue=1)

    await store.add(job, LARGE)
    assert await store.queue.jobs.body("requests", job.id) == LARGE
    again = await reopen()
    assert [job.id for job in again.index.head("ep", 9)] == [first.id, job.id]


async def test_only_the_callers_concerned_are_told(store, make_job):
    jobs = [make_job() for _ in range(40)]
    bodies = [LARGE if number == 20 else b"{}" for number in range(40)]

    with no_file_above(2**20):
        outcomes = await failures(*(store.add(job, body) for job, body in zip(jobs, bodies, strict=True)))

    assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [20]
    assert outcomes[20] is StoreUnavailable
    assert len(store.index.head("ep", 99)) == 39


async def test_what_was_decided_on_top_of_a_lost_write_is_lost_with_it(store, reopen, make_job):
    job = await store.add(make_job())
    running = await store.step(job, Taken(at=2000, worker="w"))
    ended = Succeeded(at=2001, worker="w")

    with no_file_above(2**20):
        chunk = asyncio.ensure_future(store.add_chunks(job.id, 0, [LARGE]))
        more = asyncio.ensure_future(store.add_chunks(job.id, 1, [b"small"]))
        end = asyncio.ensure_future(store.step(job, ended, output=b"1"))
        outcomes = await failures(chunk, more, end)

    assert outcomes == [StoreUnavailable] * 3
    assert await store.committed(job.id) == running
    assert store.index.leased("w") == [running]
    assert store.index.counts("ep") == Counts(in_progress=1)
    assert store.chunks(job.id) == []
    assert await store.add_chunks(job.id, 0, [b"a"]) == 1
    await store.step(job, ended, output=b"1")
    again = await reopen()
    assert (await again.committed(job.id)).status is Status.COMPLETED
    assert again.chunks(job.id) == [b"a"]


async def test_job_taken_while_its_adding_fails_was_never_there(store, make_job):
    job = make_job()

    with no_file_above(2**20):
        adding = asyncio.ensure_future(store.add(job, LARGE))
        await asyncio.sleep(0)
        taking = asyncio.ensure_future(store.step(job, Taken(at=2000, worker="w")))
        outcomes = await failures(adding, taking)

    assert outcomes == [StoreUnavailable] * 2
    assert await store.committed(job.id) is None
    assert store.index.leased("w") == []


async def test_id_that_is_only_on_disk_is_refused_and_the_old_job_stays(tmp_path, store_of, make_job):
    journal = SqliteJournal(tmp_path / "jobs.db")
    store = store_of(JobQueue(journal, ServiceSettings(), now=lambda: 2000.0, max_recent=1))
    first, second = await store.add(make_job(), b"first"), await store.add(make_job())
    old = await store.step(first, CancelRequested(at=2000))
    await store.step(second, CancelRequested(at=2000))

    adding = [store.add(job, b"new") for job in (make_job(id=first.id), make_job(), make_job())]
    outcomes = await failures(*adding)

    assert outcomes == [StoreUnavailable, None, None]
    assert await store.committed(first.id) == old
    assert await store.queue.jobs.body("requests", first.id) == b"first"
    assert store.index.counts("ep").in_queue == 2
    await journal.close()


async def test_webhook_is_due_as_before_when_its_outcome_cannot_be_written(store, make_job):
    job = await store.add(make_job(webhook=HOOK))

    with no_file_above(0), pytest.raises(StoreUnavailable):
        await store.step(job, CancelRequested(at=2000))
    assert store.queue.jobs.deliveries.next_at() is None

    await store.step(job, CancelRequested(at=2000))
    [delivery] = store.due_deliveries(3000, 9)
    with no_file_above(0):
        with pytest.raises(StoreUnavailable):
            await store.queue.settle(delivery)
        with pytest.raises(StoreUnavailable):
            await store.queue.postpone(delivery, 1.0)
    assert store.due_deliveries(3100, 9) == [], "a webhook that was sent is not sent again at once"
    assert store.due_deliveries(9000, 9) == [delivery]


async def test_forgetting_that_fails_forgets_nothing(store, make_job):
    job = await store.add(make_job())
    ended = await store.step(job, CancelRequested(at=2000))

    with no_file_above(0), pytest.raises(StoreUnavailable):
        await store.forget(9e9, 9e9)

    assert await store.committed(job.id) == ended
    assert await store.queue.jobs.body("requests", job.id) == b"{}"
    assert await store.forget(9e9, 9e9) == 1


async def test_open_take_gets_nothing_and_its_worker_asks_again_when_the_job_cannot_be_written(store, make_job):
    waiting = asyncio.create_task(store.queue.takes.take(TakeRequest(endpoint="ep", worker="w"), 20))
    await asyncio.sleep(0)
    job = await store.add(make_job())

    with no_file_above(0), pytest.raises(StoreUnavailable):
        await store.queue.takes.dispatch("ep")

    assert await waiting == []
    assert store.index.leased("w") == []
    [assigned] = await store.queue.takes.take(TakeRequest(endpoint="ep", worker="w"), 0)
    assert assigned.job.id == job.id


async def test_a_job_whose_change_cannot_be_written_does_not_keep_the_others(store, make_job, tmp_path):
    jobs = [await store.add(make_job(policy=Policy(ttl_ms=10_000))) for _ in range(3)]
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON jobs WHEN NEW.id = 'job-2' "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )

    await store.queue.sweep.once()

    ended = [store.index.get(job.id).final for job in jobs]
    assert ended == [True, False, True]


async def test_a_job_that_cannot_be_decoded_does_not_keep_the_service_from_starting(store, reopen, make_job, tmp_path):
    jobs = [await store.add(make_job()) for _ in range(3)]
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        database.execute("UPDATE jobs SET meta = 'no JSON' WHERE id = 'job-2'")
        database.commit()

    again = await reopen()

    assert list(again.index) == [jobs[0].id, jobs[2].id]
