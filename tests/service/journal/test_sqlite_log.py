"""Group commit and what follows a failure, with a disk that does what the test says."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.service.journal.database import DatabaseSink, connect, prepare
from runpod_worker.service.journal.writer import Log, Write

PATIENCE_S = 30


class Disk:
    """A sink that can be held in the middle of a commit, and fails for the names in `broken`."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[str], bool]] = []
        self.broken: set[str] = set()
        self.entered = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.held = False
        self.closed = False

    def batch(self) -> list[str]:
        return []

    def commit(self, batch: list[str], *, durable: bool) -> None:
        if self.held:
            self.entered.release()
            assert self.release.acquire(timeout=PATIENCE_S)
        if self.broken & set(batch):
            raise RuntimeError("the disk is full")
        self.commits.append((list(batch), durable))

    def close(self) -> None:
        self.closed = True

    async def caught(self) -> None:
        """Wait until a commit is being held."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_S)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def log(disk: Disk) -> AsyncIterator[Log[list[str]]]:
    made: Log[list[str]] = Log(disk)
    yield made
    disk.held = False
    disk.release.release(99)
    await made.close()
    assert disk.closed


class Memory:
    """What the loop believes; each write adds its name and takes it away again when it fails."""

    def __init__(self, log: Log[list[str]]) -> None:
        self.log = log
        self.believed: list[str] = []
        self.undone: list[str] = []
        self.safe: list[str] = []

    def write(self, name: str, *, key: str | None = None, durable: bool = True, size: int = 0) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self._write(name, key, durable, size))

    async def _write(self, name: str, key: str | None, durable: bool, size: int) -> None:
        self.believed.append(name)
        await self.log.write(
            Write(
                key,
                lambda batch: batch.append(name),
                commit=lambda: self.safe.append(name),
                undo=lambda: self._undo(name),
                durable=durable,
                size=size,
            )
        )

    def _undo(self, name: str) -> None:
        self.believed.remove(name)
        self.undone.append(name)


@pytest.fixture
def memory(log: Log[list[str]]) -> Memory:
    return Memory(log)


async def outcomes(*writes: "asyncio.Task[None]") -> list[type | None]:
    found = await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), PATIENCE_S)
    return [None if one is None else type(one) for one in found]


async def test_what_arrives_while_a_commit_runs_is_the_next_commit(disk, memory):
    disk.held = True
    first = memory.write("a")
    await disk.caught()
    rest = [memory.write(name) for name in "bcd"]
    await asyncio.sleep(0)
    disk.held = False
    disk.release.release()

    assert await outcomes(first, *rest) == [None] * 4
    assert [names for names, _ in disk.commits] == [["a"], ["b", "c", "d"]]
    assert memory.safe == ["a", "b", "c", "d"]


async def test_group_is_durable_when_one_of_its_writes_is(disk, memory):
    disk.held = True
    first = memory.write("a", durable=False)
    await disk.caught()
    rest = [memory.write("b", durable=False), memory.write("c", durable=True)]
    await asyncio.sleep(0)
    disk.held = False
    disk.release.release()
    await outcomes(first, *rest)

    assert disk.commits == [(["a"], False), (["b", "c"], True)]


def test_durable_batch_waits_for_the_disk_and_another_does_not(tmp_path):
    connection = connect(tmp_path / "jobs.db")
    prepare(connection, tmp_path / "jobs.db")
    sink = DatabaseSink(connection)
    modes = []
    for durable in (True, False, True):
        sink.commit(sink.batch(), durable=durable)
        modes += connection.execute("PRAGMA synchronous").fetchone()
    sink.close()

    assert modes == [2, 1, 2], "FULL, NORMAL, FULL"


async def test_group_ends_at_its_limit_of_bytes(disk, memory):
    disk.held = True
    first = memory.write("a")
    await disk.caught()
    rest = [memory.write("large", size=2**30), memory.write("small")]
    await asyncio.sleep(0)
    disk.held = False
    disk.release.release()
    await outcomes(first, *rest)

    assert [names for names, _ in disk.commits] == [["a"], ["large"], ["small"]]


async def test_failure_reaches_its_caller_alone(disk, memory):
    disk.broken = {"b"}
    disk.held = True
    first = memory.write("a")
    await disk.caught()
    rest = [memory.write(name, key=name) for name in "bcd"]
    await asyncio.sleep(0)
    disk.held = False
    disk.release.release()

    assert await outcomes(first, *rest) == [None, StoreUnavailable, None, None]
    assert memory.believed == ["a", "c", "d"]


async def test_later_writes_to_the_same_key_fail_with_it_and_are_undone_newest_first(disk, memory):
    disk.broken = {"b1"}
    disk.held = True
    first = memory.write("b1", key="b")
    await disk.caught()
    doomed = [memory.write(name, key="b") for name in ("b2", "b3")]
    other = memory.write("c1", key="c")
    await asyncio.sleep(0)
    disk.held = False
    disk.release.release(2)

    assert await outcomes(first, *doomed, other) == [StoreUnavailable] * 3 + [None]
    assert memory.undone == ["b3", "b2", "b1"]
    assert [name for names, _ in disk.commits for name in names] == ["c1"]


async def test_write_that_was_decided_after_the_undoing_goes_through(disk, memory):
    disk.broken = {"b1"}
    assert await outcomes(memory.write("b1", key="b")) == [StoreUnavailable]

    assert await outcomes(memory.write("b2", key="b"), memory.write("b3", key="b")) == [None, None]
    assert memory.safe == ["b2", "b3"]


async def test_quiet_waits_for_all_writes_to_the_key(disk, memory, log):
    disk.held = True
    first = memory.write("a", key="k")
    await disk.caught()
    assert log.busy("k")
    quiet = asyncio.ensure_future(log.quiet("k"))
    second = memory.write("b", key="k")
    await asyncio.sleep(0)
    assert not quiet.done()
    disk.held = False
    disk.release.release()

    await asyncio.wait_for(quiet, PATIENCE_S)
    assert not log.busy("k")
    assert await outcomes(first, second) == [None, None]


async def test_caller_who_goes_away_leaves_the_write(disk, memory):
    disk.held = True
    first = memory.write("a")
    await disk.caught()
    first.cancel()
    disk.held = False
    disk.release.release()
    await outcomes(memory.write("b"))

    assert memory.safe == ["a", "b"]


async def test_closing_finishes_what_was_handed_over(disk):
    log: Log[list[str]] = Log(disk)
    memory = Memory(log)
    writes = [memory.write(name) for name in "abc"]
    await asyncio.sleep(0)
    await log.close()

    assert await outcomes(*writes) == [None] * 3
    assert disk.closed


async def test_log_that_never_wrote_closes_too(disk):
    log: Log[list[str]] = Log(disk)
    await log.close()
    await log.close()

    assert disk.closed
