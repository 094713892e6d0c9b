"""What stays in memory of bodies and chunks, what leaves it, and what readers get."""

from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.queue.bodies import MAX_BODY_BYTES, BodyCache
from runpod_worker.service.queue.streams import ChunkLogs


class Disk(NullJournal):
    """A journal that keeps things, with the chunks that a test puts into it."""

    keeps = True

    def __init__(self, *chunks: bytes, base: int = 0) -> None:
        self.stored = list(chunks)
        self.base = base

    def chunk_range(self, seq: int) -> tuple[int, int]:
        return self.base, len(self.stored)

    def chunks(self, seq: int, start: int, stop: int) -> list[bytes]:
        return self.stored[start:stop]


def write(disk: Disk, logs: ChunkLogs, seq: int, chunks: list[bytes], index: int | None = None) -> None:
    start, fresh = logs.add(seq, chunks, index)
    disk.stored[start:] = fresh
    logs.on_written(logs.of(seq), start + len(fresh))


async def test_small_bodies_are_kept_and_large_ones_are_not():
    bodies = BodyCache(Disk())
    bodies.put(("outputs", 1), b"small")
    bodies.put(("outputs", 2), b"x" * (MAX_BODY_BYTES + 1))
    bodies.put(("outputs", 3), None)

    assert await bodies.read(("outputs", 1)) == b"small"
    assert ("outputs", 2) not in bodies
    assert ("outputs", 3) in bodies


async def test_large_body_drives_out_the_small_one_before_it():
    bodies = BodyCache(Disk())
    bodies.put(("outputs", 1), b"old")
    bodies.put(("outputs", 1), b"x" * (MAX_BODY_BYTES + 1))

    assert ("outputs", 1) not in bodies


async def test_body_that_was_used_longest_ago_leaves_first():
    bodies = BodyCache(Disk(), max_bytes=3 * 1200)
    for number in range(3):
        bodies.put(("requests", number), b"x" * 1000)
    await bodies.read(("requests", 0))
    bodies.put(("requests", 3), b"x" * 1000)

    assert [number for number in range(4) if ("requests", number) in bodies] == [0, 2, 3]


async def test_every_body_stays_if_the_journal_keeps_nothing():
    bodies = BodyCache(NullJournal(), max_bytes=1)
    bodies.put(("requests", 1), b"x" * (MAX_BODY_BYTES + 1))

    assert len(await bodies.read(("requests", 1))) == MAX_BODY_BYTES + 1


def test_only_written_chunks_are_read_and_each_once():
    logs = ChunkLogs(Disk())
    logs.add(1, [b"a", b"b"], 0)
    assert logs.read(1) == ([], True)

    logs.on_written(logs.of(1), 1)
    assert logs.read(1) == ([b"a"], True)
    logs.on_written(logs.of(1), 2)

    assert logs.read(1) == ([b"b"], True)
    logs.unread(1, 2)
    assert logs.read(1) == ([b"a", b"b"], True)


def test_written_chunks_leave_memory_if_there_are_too_many_and_are_still_read():
    disk = Disk()
    logs = ChunkLogs(disk, max_bytes=100)
    write(disk, logs, 1, [b"x" * 60, b"y" * 60])
    logs.add(1, [b"z"], 2)

    log = logs.of(1)
    assert (log.first, log.recent, log.count) == (2, [b"z"], 3), "what is not written stays"
    assert logs.read(1) == ([b"x" * 60, b"y" * 60], True)


def test_log_starts_behind_what_is_in_the_journal():
    logs = ChunkLogs(Disk(b"a", b"b", b"c", base=1))

    log = logs.of(1)
    assert (log.base, log.read, log.first, log.written, log.count) == (1, 1, 3, 3, 3)
    assert logs.latest(1) == [b"b", b"c"]


def test_next_attempt_counts_from_where_the_lost_one_ended():
    disk = Disk()
    logs = ChunkLogs(disk)
    write(disk, logs, 1, [b"a", b"b"], 0)
    assert logs.restart(1) == 2

    write(disk, logs, 1, [b"c"], 0)
    write(disk, logs, 1, [b"c", b"d"], 0)

    assert logs.read(1) == ([b"c", b"d"], True), "what was not read of the lost attempt is dropped"


def test_a_commit_of_chunks_that_were_dropped_meanwhile_counts_for_nothing():
    logs = ChunkLogs(Disk())
    logs.add(1, [b"a"], 0)
    dropped = logs.of(1)
    logs.reset(1)

    logs.on_written(dropped, 1)

    assert (logs.of(1).written, logs.read(1)) == (0, ([], True))


def test_the_log_used_longest_ago_is_forgotten_but_not_with_chunks_under_way():
    logs = ChunkLogs(Disk(), max_logs=2)
    logs.add(1, [b"a"], 0)
    for seq in (2, 3, 4):
        logs.of(seq)

    assert len(logs) == 2 or len(logs) == 3
    assert logs.of(1).count == 1
