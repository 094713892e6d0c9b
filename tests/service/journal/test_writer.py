"""Group commit and what follows a failure, with a disk that does what the test says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Sequence

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.service.journal.database import DatabaseSink, connect
from runpod_worker.service.journal.port import ForgetRecord, Record
from runpod_worker.service.journal.schema import prepare
from runpod_worker.service.journal.writer import MAX_GROUP_BYTES, Append, GroupWriter, Writer

TIMEOUT_S = 30


def record(name: str) -> ForgetRecord:
    """A record of job `name[0]`, told from others of that job by the others."""
    return ForgetRecord(seq=0, job_id=name[0], ended_at=float(name[1:] or 0))


def name_of(written: Record) -> str:
    assert isinstance(written, ForgetRecord)
    return f"{written.job_id}{written.ended_at:.0f}"


class Disk:
    """A sink that can be held in the middle of a commit, and fails for the names in `broken`."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[str], bool]] = []
        self.broken: set[str] = set()
        self.entered = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.held = False

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        if self.held:
            self.entered.release()
            assert self.release.acquire(timeout=TIMEOUT_S)
        names = [name_of(each) for each in records]
        if self.broken & set(names):
            raise RuntimeError("the disk is full")
        if names:
            self.commits.append((names, durable))

    async def caught(self) -> None:
        """Wait until a commit is being held."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=TIMEOUT_S)

    def let_go(self) -> None:
        self.held = False
        self.release.release(99)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def lost() -> list[set[str]]:
    return []


@pytest.fixture
async def writer(disk: Disk, lost: list[set[str]]) -> AsyncIterator[Writer]:
    def on_lost(job_ids: Collection[str]) -> None:
        lost.append(set(job_ids))

    made = Writer(disk, on_lost)
    yield made
    disk.let_go()
    await made.close()


def append(writer: Writer, *names: str, durable: bool = True) -> "asyncio.Future[None]":
    return writer.append([record(name) for name in names], durable=durable)


async def outcomes(*writes: "asyncio.Future[None]") -> list[type | None]:
    results = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), TIMEOUT_S)
    return [None if result is None else type(result) for result in results]


async def test_what_arrives_while_a_commit_runs_is_the_next_commit(disk, writer):
    disk.held = True
    first = append(writer, "a1")
    await disk.caught()
    others = [append(writer, name) for name in ("b1", "c1", "d1")]
    disk.let_go()

    assert await outcomes(first, *others) == [None] * 4
    assert [names for names, _ in disk.commits] == [["a1"], ["b1", "c1", "d1"]]


async def test_group_is_durable_when_one_of_its_appends_is(disk, writer):
    disk.held = True
    first = append(writer, "a1", durable=False)
    await disk.caught()
    others = [append(writer, "b1", durable=False), append(writer, "c1", durable=True)]
    disk.let_go()
    await outcomes(first, *others)

    assert disk.commits == [(["a1"], False), (["b1", "c1"], True)]


def test_durable_group_waits_for_the_disk_and_another_does_not(tmp_path):
    connection = connect(tmp_path / "jobs.db")
    prepare(connection, tmp_path / "jobs.db")
    sink = DatabaseSink(connection)
    modes = []
    for durable in (True, False, True):
        sink.write([], durable=durable)
        modes += connection.execute("PRAGMA synchronous").fetchone()
    connection.close()

    assert modes == [2, 1, 2], "FULL, NORMAL, FULL"


async def test_group_ends_at_its_limit_of_bytes(disk, writer, monkeypatch):
    monkeypatch.setattr("runpod_worker.service.journal.writer._size", lambda record: MAX_GROUP_BYTES)
    disk.held = True
    first = append(writer, "a1")
    await disk.caught()
    others = [append(writer, "b1"), append(writer, "c1")]
    disk.let_go()
    await outcomes(first, *others)

    assert [names for names, _ in disk.commits] == [["a1"], ["b1"], ["c1"]]


async def test_failure_reaches_its_caller_alone_and_its_job_is_read_again_before(disk, writer, lost):
    disk.broken = {"b1"}
    disk.held = True
    first = append(writer, "a1")
    await disk.caught()
    others = [append(writer, name) for name in ("b1", "c1", "d1")]
    others[0].add_done_callback(lambda _: lost.append(set()))
    disk.let_go()

    assert await outcomes(first, *others) == [None, StoreUnavailable, None, None]
    assert lost == [{"b"}, set()]


async def test_what_is_queued_behind_a_failure_for_the_same_job_is_refused(disk, writer, lost):
    disk.broken = {"b1"}
    disk.held = True
    first = append(writer, "b1")
    await disk.caught()
    behind = [append(writer, name) for name in ("b2", "b3")]
    other = append(writer, "c1")
    disk.let_go()

    assert await outcomes(first, *behind, other) == [StoreUnavailable] * 3 + [None]
    assert lost == [{"b"}], "once: the later ones were decided before it"
    assert [name for names, _ in disk.commits for name in names] == ["c1"]


async def test_append_that_was_decided_after_the_failure_was_dealt_with_goes_through(disk, writer):
    disk.broken = {"b1"}
    assert await outcomes(append(writer, "b1")) == [StoreUnavailable]

    assert await outcomes(append(writer, "b2"), append(writer, "b3")) == [None, None]
    assert [name for names, _ in disk.commits for name in names] == ["b2", "b3"]


async def test_cancelled_waiter_waits_for_the_write(disk, writer):
    disk.held = True

    async def commit() -> None:
        await append(writer, "a1")

    waiting = asyncio.create_task(commit())
    await disk.caught()
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    disk.let_go()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [names for names, _ in disk.commits] == [["a1"]]


async def test_closing_finishes_what_is_under_way_and_refuses_what_comes_later(disk):
    writer = Writer(disk, lambda job_ids: None)
    writes = [append(writer, name) for name in ("a1", "b1", "c1")]
    await writer.close()
    await writer.close()

    assert await outcomes(*writes, append(writer, "d1")) == [None] * 3 + [StoreUnavailable]
    assert writer._thread is not None
    assert not writer._thread.is_alive()


async def test_writer_that_never_wrote_closes_too(disk):
    writer = Writer(disk, lambda job_ids: None)
    await writer.close()

    assert await outcomes(append(writer, "a1")) == [StoreUnavailable]


class Groups:
    """Groups of appends without the thread: what is written, what fails, which jobs must be read again."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.writer = GroupWriter(self.disk)

    def write(self, *appends: tuple[str, int]) -> tuple[list[bool], set[str]]:
        """An append is its records' names and the failures the loop had seen. Returns which succeeded, what is lost."""
        group = [
            Append([record(name) for name in names.split()], durable=True, failures_seen=seen)
            for names, seen in appends
        ]
        lost = self.writer.write(group)
        return [append.error is None for append in group], lost


async def test_a_refused_append_loses_its_other_jobs_too():
    groups = Groups()
    groups.disk.broken = {"a1"}

    assert groups.write(("a1", 0), ("b1", 0), ("a2 b2", 0), ("b3", 0), ("c1", 0)) == (
        [False, True, False, False, True],
        {"a", "b"},
    )


async def test_a_refusal_in_a_later_group_is_a_failure_of_its_own():
    groups = Groups()
    groups.disk.broken = {"a1"}
    assert groups.write(("a1", 0)) == ([False], {"a"})

    # The loop has dealt with failure 1 (job a) when `a3` is decided, but not with the one of `a2 b2` (job b).
    assert groups.write(("a2 b2", 0), ("a3", 1), ("b3", 1)) == ([False, True, False], {"b"})
    assert groups.write(("b4", 1), ("b5", 2)) == ([False, True], set())


async def test_failures_that_the_loop_has_dealt_with_are_forgotten():
    groups = Groups()
    for number in range(1000):
        name = f"{chr(0x4E00 + number)}1"
        groups.disk.broken = {name}
        assert groups.write((name, number)) == ([False], {name[0]})

    assert len(groups.writer._lost) <= 2
