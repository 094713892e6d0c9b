"""What a SQLite store brings back, whom it refuses, and what a kill -9 cannot take from it."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Policy, Status
from runpod_worker.core.lifecycle import CancelRequested, Failed, Retried, Succeeded, Taken, apply
from runpod_worker.service.journal.port import Counts, Delivery
from runpod_worker.service.journal.sqlite import SqliteStore

HOOK = "https://receiver.example/hook"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


async def test_everything_is_there_after_reopening(path, make_job):
    store = SqliteStore(path)
    queued, low = make_job(), make_job(policy=Policy(low_priority=True), created_at=1.0)
    running = make_job(policy=Policy(ttl_ms=77), webhook=HOOK)
    done = make_job(webhook=HOOK)
    for job in queued, low, running, done:
        await store.add(job, job.id.encode())
    taken = apply(running, Taken(at=2000.5, worker="w", take="t", confirms=True, gpu="24"))
    await store.swap(running, taken)
    await store.append(running.id, 0, [b"a", b"b"])
    held = apply(done, Taken(at=2000.0, worker="w"))
    ended = apply(held, Succeeded(at=2001.25, worker="w"))
    await store.swap(done, held)
    await store.swap(held, ended, output=b'{"x":1}')
    await store.close()

    store = SqliteStore(path)

    assert store.head("ep", 9) == [queued, low]
    assert store.leased("w") == [taken]
    assert {job.id for job in store.overdue(9e9)} == {queued.id, low.id, running.id}
    assert await store.settled(done.id) == ended
    assert await store.output(done.id) == b'{"x":1}'
    assert await store.request(running.id) == b"job-3"
    assert store.chunks(running.id, 0) == [b"a", b"b"]
    assert await store.append(running.id, 2, [b"c"]) == 3
    assert store.chunks(running.id, 1) == [b"b", b"c"]
    assert store.counts("ep") == Counts(in_queue=2, in_progress=1, completed=1)
    assert await store.deliveries(3000, 9) == [Delivery(job_id=done.id, url=HOOK, tries=0, next_at=2001.25)]
    await store.close()


async def test_order_of_adding_survives_reopening(path, make_job):
    store = SqliteStore(path)
    for name in "zebra", "ant":
        await store.add(make_job(id=name, created_at=5.0), b"")
    await store.close()

    store = SqliteStore(path)
    await store.add(make_job(id="mole", created_at=5.0), b"")

    assert [job.id for job in store.head("ep", 9)] == ["zebra", "ant", "mole"]
    await store.close()


async def test_job_that_ended_before_the_restart_can_be_retried(path, make_job):
    store = SqliteStore(path)
    job = make_job(webhook=HOOK)
    running = apply(job, Taken(at=2000, worker="w"))
    failed = apply(running, Failed(at=2001, worker="w", error="e"))
    await store.add(job, b"{}")
    await store.swap(job, running)
    await store.append(job.id, 0, [b"a"])
    await store.swap(running, failed)
    await store.close()
    store = SqliteStore(path)

    found = store.get(job.id)
    again = apply(found, Retried(at=2002))

    assert found == failed
    assert await store.swap(found, again)
    assert not await store.swap(failed, again)
    assert store.chunks(job.id, 0) == []
    assert store.next_delivery() is None
    assert store.head("ep", 1) == [again]
    await store.close()


async def test_id_that_is_only_on_disk_is_refused_like_any_other(path, make_job):
    store = SqliteStore(path, recent_jobs=1)
    first, second = (apply(make_job(), CancelRequested(at=2000)) for _ in range(2))
    await store.add(first, b"first")
    await store.add(second, b"second")

    adding = [store.add(job, b"new") for job in (make_job(id=first.id), make_job(), make_job())]
    outcomes = await asyncio.gather(*adding, return_exceptions=True)

    assert isinstance(outcomes[0], ValueError)
    assert outcomes[1:] == [None, None]
    assert await store.settled(first.id) == first
    assert await store.request(first.id) == b"first"
    assert store.counts("ep").in_queue == 2
    await store.close()


async def test_second_process_is_refused(path):
    store = SqliteStore(path)
    code = f"from runpod_worker.service.journal.sqlite import SqliteStore; SqliteStore({str(path)!r})"

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert other.returncode == 1
    assert "in use by another process" in other.stderr
    await store.close()
    again = SqliteStore(path)
    await again.close()


async def test_file_of_a_newer_release_is_refused(path):
    await SqliteStore(path).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()

    for _ in range(2):  # the refusal must not keep the file locked
        with pytest.raises(StoreUnavailable, match="schema version 99"):
            SqliteStore(path)


def test_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(StoreUnavailable, match=r"jobs\.db"):
        SqliteStore(path)


async def test_closed_store_refuses_writes(path, make_job):
    store = SqliteStore(path)
    await store.close()
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.add(make_job(), b"")


VICTIM = """
import asyncio, sys
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Succeeded, Taken, apply
from runpod_worker.service.journal.sqlite import SqliteStore

async def lives(store, lane):
    for number in range(10**9):
        job = Job(id=f"{lane}-{number}", endpoint="ep", created_at=1.0, queued_at=1.0, webhook="http://x/")
        await store.add(job, job.id.encode() * 50)
        say("added", job.id)
        running = apply(job, Taken(at=2.0, worker=str(lane)))
        await store.swap(job, running)
        say("taken", job.id)
        await store.append(job.id, 0, [b"c0", b"c1"])
        say("chunks", job.id)
        await store.swap(running, apply(running, Succeeded(at=3.0, worker=str(lane))), output=job.id.encode())
        say("ended", job.id)

def say(*words):
    print(*words, flush=True)

async def main():
    store = SqliteStore(sys.argv[1])
    await asyncio.gather(*(lives(store, lane) for lane in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
async def test_every_acknowledged_write_survives_kill_9(path, seed):
    patience = random.Random(seed).randint(50, 3000)
    child = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, text=True)
    said: list[tuple[str, str]] = []
    for line in child.stdout:
        if line.endswith("\n"):
            word, job_id = line.split()
            said.append((word, job_id))
        if len(said) == patience:
            child.send_signal(signal.SIGKILL)
    child.stdout.close()
    child.wait(30)

    assert len(said) >= patience
    store = SqliteStore(path)
    reached = {job_id: word for word, job_id in said}
    for job_id, word in reached.items():
        job = await store.settled(job_id)
        assert await store.request(job_id) == job_id.encode() * 50
        if word in ("taken", "chunks"):
            assert job.status in (Status.IN_PROGRESS, Status.COMPLETED)
        if word in ("chunks", "ended"):
            assert store.chunks(job_id, 0) == [b"c0", b"c1"]
        if word == "ended":
            assert job.status is Status.COMPLETED
            assert await store.output(job_id) == job_id.encode()
    owed = {row.job_id for row in await store.deliveries(1e9, 10**6)}
    assert {job_id for job_id, word in reached.items() if word == "ended"} <= owed
    assert store.counts("ep").completed == len(owed)
    await store.close()
