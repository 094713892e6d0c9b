"""A store that cannot write: who hears of it, and that memory never says more than the disk."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Status
from runpod_worker.core.lifecycle import CancelRequested, Succeeded, Taken, apply
from runpod_worker.service.journal.port import Counts
from runpod_worker.service.journal.sqlite import SqliteStore

LARGE = b"x" * (4 * 2**20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond `size` bytes: a disk that is full, for real."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_disk_fails_the_write_and_nothing_of_it_stays(path, make_job):
    store = SqliteStore(path)
    first = make_job()
    await store.add(first, b"{}")

    with no_file_above(2**20):
        job = make_job()
        with pytest.raises(StoreUnavailable):
            await store.add(job, LARGE)
        assert store.get(job.id) is None
        assert store.head("ep", 9) == [first]
        assert store.counts("ep") == Counts(in_queue=1)

    await store.add(job, LARGE)
    assert await store.request(job.id) == LARGE
    await store.close()
    store = SqliteStore(path)
    assert [found.id for found in store.head("ep", 9)] == [first.id, job.id]
    await store.close()


async def test_only_the_callers_concerned_hear_of_it(path, make_job):
    store = SqliteStore(path)
    jobs = [make_job() for _ in range(40)]
    bodies = [LARGE if number == 20 else b"{}" for number in range(40)]

    with no_file_above(2**20):
        outcomes = await asyncio.gather(
            *(store.add(job, body) for job, body in zip(jobs, bodies, strict=True)), return_exceptions=True
        )

    assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [20]
    assert isinstance(outcomes[20], StoreUnavailable)
    assert len(store.head("ep", 99)) == 39
    await store.close()


async def test_what_was_built_on_a_lost_write_is_lost_with_it(path, make_job):
    store = SqliteStore(path)
    job = make_job()
    await store.add(job, b"{}")
    running = apply(job, Taken(at=2000, worker="w"))
    await store.swap(job, running)
    ended = apply(running, Succeeded(at=2001, worker="w"))

    with no_file_above(2**20):
        chunk = asyncio.ensure_future(store.append(job.id, 0, [LARGE]))
        more = asyncio.ensure_future(store.append(job.id, 1, [b"small"]))
        end = asyncio.ensure_future(store.swap(running, ended, output=b"1"))
        outcomes = await asyncio.gather(chunk, more, end, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    assert await store.settled(job.id) == running
    assert store.leased("w") == [running]
    assert store.counts("ep") == Counts(in_progress=1)
    assert store.chunks(job.id, 0) == []
    assert await store.append(job.id, 0, [b"a"]) == 1
    assert await store.swap(running, ended, output=b"1")
    await store.close()
    store = SqliteStore(path)
    assert (await store.settled(job.id)).status is Status.COMPLETED
    assert store.chunks(job.id, 0) == [b"a"]
    await store.close()


async def test_chunk_sent_again_is_not_acknowledged_before_its_first_write(path, make_job):
    store = SqliteStore(path)
    job = make_job()
    await store.add(job, b"{}")

    with no_file_above(2**20):
        first = asyncio.ensure_future(store.append(job.id, 0, [LARGE]))
        again = asyncio.ensure_future(store.append(job.id, 0, [LARGE]))
        outcomes = await asyncio.gather(first, again, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    await store.close()


async def test_job_taken_while_its_adding_fails_was_never_there(path, make_job):
    store = SqliteStore(path)
    job = make_job()

    with no_file_above(2**20):
        adding = asyncio.ensure_future(store.add(job, LARGE))
        await asyncio.sleep(0)
        taking = asyncio.ensure_future(store.swap(job, apply(job, Taken(at=2000, worker="w"))))
        outcomes = await asyncio.gather(adding, taking, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    assert await store.settled(job.id) is None
    assert store.leased("w") == []
    await store.close()


async def test_webhook_is_as_before_when_they_cannot_be_written(path, make_job):
    store = SqliteStore(path)
    job = make_job(webhook="https://receiver.example/")
    await store.add(job, b"{}")

    with no_file_above(0), pytest.raises(StoreUnavailable):
        await store.swap(job, apply(job, CancelRequested(at=2000)))

    assert store.next_delivery() is None
    await store.swap(job, apply(job, CancelRequested(at=2000)))
    [delivery] = await store.deliveries(3000, 9)
    with no_file_above(0):
        with pytest.raises(StoreUnavailable):
            await store.settle(delivery)
        with pytest.raises(StoreUnavailable):
            await store.postpone(delivery, 1.0)
    assert await store.deliveries(9000, 9) == [delivery]
    await store.close()


async def test_forgetting_that_fails_forgets_nothing(path, make_job):
    store = SqliteStore(path)
    job = apply(make_job(), CancelRequested(at=2000))
    await store.add(job, b"{}")

    with no_file_above(0), pytest.raises(StoreUnavailable):
        await store.forget(9e9, 9e9)

    assert await store.settled(job.id) == job
    assert await store.request(job.id) == b"{}"
    assert await store.forget(9e9, 9e9) == 1
    await store.close()
