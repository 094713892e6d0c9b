"""What a SQLite journal brings back, whom it refuses, and what a kill -9 cannot take from it."""

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.core.job import Policy, Status
from runpod_worker.core.lifecycle import CancelRequested, Failed, LeaseExpired, Retried, Succeeded, Taken
from runpod_worker.service.journal.port import Delivery
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.index import Counts
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.settings import ServiceSettings

HOOK = "https://receiver.example/hook"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def reopen(path, store_of):
    """Opens the database of this test; each call closes the one before it."""
    journals = []

    async def opened():
        if journals:
            await journals.pop().close()
        journals.append(SqliteJournal(path))
        return store_of(JobQueue(journals[0], ServiceSettings(), now=lambda: 2000.0))

    yield opened
    for journal in journals:
        await journal.close()


@pytest.fixture
async def store(reopen):
    return await reopen()


async def test_everything_is_there_after_reopening(store, reopen, make_job):
    queued, low = make_job(), make_job(policy=Policy(low_priority=True), created_at=1.0)
    running = make_job(policy=Policy(ttl_ms=77), webhook=HOOK)
    done = make_job(webhook=HOOK)
    for job in queued, low, running, done:
        await store.add(job, job.id.encode())
    taken = await store.step(running, Taken(at=2000.5, worker="w", take="t", confirms=True, gpu="24"))
    await store.add_chunks(running.id, 0, [b"a", b"b"])
    await store.step(done, Taken(at=2000.0, worker="w"))
    ended = await store.step(done, Succeeded(at=2001.25, worker="w"), output=b'{"x":1}')

    store = await reopen()

    assert store.index.head("ep", 9) == [queued, low]
    assert store.index.leased("w") == [taken]
    assert {job.id for job in store.index.overdue(9e9)} == {queued.id, low.id, running.id}
    assert await store.committed(done.id) == ended
    assert await store.queue.jobs.body("outputs", done.id) == b'{"x":1}'
    assert await store.queue.jobs.body("requests", running.id) == b"job-3"
    assert store.chunks(running.id) == [b"a", b"b"]
    assert await store.add_chunks(running.id, 2, [b"c"]) == 3
    assert store.chunks(running.id, 1) == [b"b", b"c"]
    assert store.index.counts("ep") == Counts(in_queue=2, in_progress=1, completed=1)
    assert store.due_deliveries(3000, 9) == [Delivery(job_id=done.id, url=HOOK, tries=0, next_at=2001.25)]


async def test_order_of_adding_survives_reopening(store, reopen, make_job):
    for name in "zebra", "ant":
        await store.add(make_job(id=name, created_at=5.0))

    store = await reopen()
    await store.add(make_job(id="mole", created_at=5.0))

    assert [job.id for job in store.index.head("ep", 9)] == ["zebra", "ant", "mole"]


async def test_job_that_ended_before_the_restart_can_be_retried(store, reopen, make_job):
    job = await store.add(make_job(webhook=HOOK))
    await store.step(job, Taken(at=2000, worker="w"))
    await store.add_chunks(job.id, 0, [b"a"])
    failed = await store.step(job, Failed(at=2001, worker="w", error="e"))

    store = await reopen()
    assert store.queue.jobs.get(job.id) == failed
    again = await store.step(job, Retried(at=2002))

    assert store.chunks(job.id) == []
    assert store.queue.jobs.deliveries.next_at() is None
    assert store.index.head("ep", 1) == [again]


async def test_second_attempt_still_counts_its_own_chunks_after_a_restart(store, reopen, make_job):
    job = await store.add(make_job())
    await store.step(job, Taken(at=2000, worker="w"))
    await store.add_chunks(job.id, 0, [b"lost", b"lost too"])
    await store.step(job, LeaseExpired(at=2050))

    store = await reopen()
    await store.step(job, Taken(at=2051, worker="w"))
    await store.add_chunks(job.id, 0, [b"again"])

    assert (await store.queue.read_stream("ep", job.id, 0)).chunks == [b"again"]


async def test_jobs_can_be_read_with_plain_sql(store, path, make_job):
    job = await store.add(make_job(webhook=HOOK, created_at=1_700_000_000.25))
    await store.step(job, Taken(at=1_700_000_001.5, worker="w", gpu="24"))
    await store.step(job, Failed(at=1_700_000_002.0, worker="w", error="boom"))
    await store.add(make_job(endpoint="other"))

    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute("SELECT * FROM job_view WHERE endpoint = 'ep'")]
    counts = connection.execute("SELECT endpoint, status, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1").fetchall()
    connection.close()

    assert rows == [
        {
            "id": job.id,
            "endpoint": "ep",
            "status": "FAILED",
            "created": "2023-11-14 22:13:20.250",
            "taken": "2023-11-14 22:13:21.500",
            "ended": "2023-11-14 22:13:22.000",
            "attempt": 1,
            "retries": 0,
            "worker": "w",
            "gpu": "24",
            "failure": "handler_error",
            "error": "boom",
            "webhook": HOOK,
            "sync": 0,
        }
    ]
    assert list(map(tuple, counts)) == [("ep", "FAILED", 1), ("other", "IN_QUEUE", 1)]


async def test_second_process_is_refused(store, path):
    code = f"from runpod_worker.service.journal.sqlite import SqliteJournal; SqliteJournal({str(path)!r})"

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert other.returncode == 1
    assert "in use by another process" in other.stderr


async def test_file_of_a_newer_release_is_refused(path):
    await SqliteJournal(path).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()

    for _ in range(2):  # the refusal must not keep the file locked
        with pytest.raises(StoreUnavailable, match="schema version 99"):
            SqliteJournal(path)


def test_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(StoreUnavailable, match=r"jobs\.db"):
        SqliteJournal(path)


async def test_closed_journal_refuses_writes(store, make_job):
    await store.queue.jobs.journal.close()
    await store.queue.jobs.journal.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.add(make_job())


async def test_webhook_of_a_cancelled_job_is_due_after_reopening(store, reopen, make_job):
    job = await store.add(make_job(webhook=HOOK))
    await store.step(job, CancelRequested(at=2000))

    store = await reopen()

    assert store.queue.jobs.deliveries.next_at() == 2000


VICTIM = """
import asyncio, sys
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import Succeeded, Taken
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings

async def live(jobs, lane):
    for number in range(10**9):
        job = Job(id=f"{lane}-{number}", endpoint="ep", created_at=1.0, queued_at=1.0, webhook="http://x/")
        adding = Transaction(jobs)
        adding.add(job, job.id.encode() * 50)
        await adding.commit()
        say("added", job.id)
        taking = Transaction(jobs)
        taking.apply(job.id, Taken(at=2.0, worker=str(lane)))
        await taking.commit(durable=False)
        say("taken", job.id)
        streaming = Transaction(jobs)
        streaming.add_chunks(job.id, [b"c0", b"c1"], 0)
        await streaming.commit(durable=False)
        say("chunks", job.id)
        ending = Transaction(jobs)
        ending.apply(job.id, Succeeded(at=3.0, worker=str(lane)), output=job.id.encode())
        await ending.commit()
        say("ended", job.id)

def say(*words):
    print(*words, flush=True)

async def main():
    queue = JobQueue(SqliteJournal(sys.argv[1]), ServiceSettings(), now=lambda: 1.0)
    await asyncio.gather(*(live(queue.jobs, lane) for lane in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
async def test_every_acknowledged_write_survives_kill_9(path, reopen, seed):
    lines_to_read = random.Random(seed).randint(50, 3000)
    child = subprocess.Popen([sys.executable, "-c", VICTIM, str(path)], stdout=subprocess.PIPE, text=True)
    printed: list[tuple[str, str]] = []
    for line in child.stdout:
        if line.endswith("\n"):
            word, job_id = line.split()
            printed.append((word, job_id))
        if len(printed) == lines_to_read:
            child.send_signal(signal.SIGKILL)
    child.stdout.close()
    child.wait(30)

    assert len(printed) >= lines_to_read
    store = await reopen()
    reached = {job_id: word for word, job_id in printed}
    for job_id, word in reached.items():
        job = await store.committed(job_id)
        assert await store.queue.jobs.body("requests", job_id) == job_id.encode() * 50
        if word in ("taken", "chunks"):
            assert job.status in (Status.IN_PROGRESS, Status.COMPLETED)
        if word in ("chunks", "ended"):
            assert store.chunks(job_id) == [b"c0", b"c1"]
        if word == "ended":
            assert job.status is Status.COMPLETED
            assert await store.queue.jobs.body("outputs", job_id) == job_id.encode()
    due = {row.job_id for row in store.due_deliveries(1e9, 10**6)}
    assert {job_id for job_id, word in reached.items() if word == "ended"} <= due
    assert store.index.counts("ep").completed == len(due)
