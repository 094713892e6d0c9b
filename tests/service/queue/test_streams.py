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

    def chunk_range(self, job_id: str) -> tuple[int, int]:
        return self.base, len(self.stored)

    def chunks(self, job_id: str, start: int, stop: int) -> list[bytes]:
        return self.stored[start:stop]


def write(disk: Disk, logs: ChunkLogs, job_id: str, chunks: list[bytes], index: int | None = None) -> None:
    start, fresh = logs.add(job_id, chunks, index)
    disk.stored[start:] = fresh
    logs.on_written(logs.of(job_id), start + len(fresh))


async def test_small_bodies_are_kept_and_large_ones_are_not():
    bodies = BodyCache(Disk())
    bodies.put(("outputs", "a"), b"small")
    bodies.put(("outputs", "b"), b"x" * (MAX_BODY_BYTES + 1))
    bodies.put(("outputs", "c"), None)

    assert await bodies.read(("outputs", "a")) == b"small"
    assert ("outputs", "b") not in bodies
    assert ("outputs", "c") in bodies


async def test_large_body_drives_out_the_small_one_before_it():
    bodies = BodyCache(Disk())
    bodies.put(("outputs", "a"), b"old")
    bodies.put(("outputs", "a"), b"x" * (MAX_BODY_BYTES + 1))

    assert ("outputs", "a") not in bodies


async def test_body_that_was_used_longest_ago_leaves_first():
    bodies = BodyCache(Disk(), max_bytes=3 * 1200)
    for number in range(3):
        bodies.put(("requests", str(number)), b"x" * 1000)
    await bodies.read(("requests", "0"))
    bodies.put(("requests", "3"), b"x" * 1000)

    assert [number for number in range(4) if ("requests", str(number)) in bodies] == [0, 2, 3]


async def test_every_body_stays_if_the_journal_keeps_nothing():
    bodies = BodyCache(NullJournal(), max_bytes=1)
    bodies.put(("requests", "1"), b"x" * (MAX_BODY_BYTES + 1))

    assert len(await bodies.read(("requests", "1"))) == MAX_BODY_BYTES + 1


def test_only_written_chunks_are_read_and_each_once():
    logs = ChunkLogs(Disk())
    logs.add("job", [b"a", b"b"], 0)
    assert logs.read("job") == ([], True)

    logs.on_written(logs.of("job"), 1)
    assert logs.read("job") == ([b"a"], True)
    logs.on_written(logs.of("job"), 2)

    assert logs.read("job") == ([b"b"], True)
    logs.unread("job", 2)
    assert logs.read("job") == ([b"a", b"b"], True)


def test_written_chunks_leave_memory_if_there_are_too_many_and_are_still_read():
    disk = Disk()
    logs = ChunkLogs(disk, max_bytes=100)
    write(disk, logs, "job", [b"x" * 60, b"y" * 60])
    logs.add("job", [b"z"], 2)

    log = logs.of("job")
    assert (log.first, log.recent, log.count) == (2, [b"z"], 3), "what is not written stays"
    assert logs.read("job") == ([b"x" * 60, b"y" * 60], True)


def test_log_starts_behind_what_is_in_the_journal():
    logs = ChunkLogs(Disk(b"a", b"b", b"c", base=1))

    log = logs.of("job")
    assert (log.base, log.read, log.first, log.written, log.count) == (1, 1, 3, 3, 3)
    assert logs.latest("job") == [b"b", b"c"]


def test_next_attempt_counts_from_where_the_lost_one_ended():
    disk = Disk()
    logs = ChunkLogs(disk)
    write(disk, logs, "job", [b"a", b"b"], 0)
    assert logs.restart("job") == 2

    write(disk, logs, "job", [b"c"], 0)
    write(disk, logs, "job", [b"c", b"d"], 0)

    assert logs.read("job") == ([b"c", b"d"], True), "what was not read of the lost attempt is dropped"


def test_a_commit_of_chunks_that_were_dropped_meanwhile_counts_for_nothing():
    logs = ChunkLogs(Disk())
    logs.add("job", [b"a"], 0)
    dropped = logs.of("job")
    logs.reset("job")

    logs.on_written(dropped, 1)

    assert (logs.of("job").written, logs.read("job")) == (0, ([], True))


def test_the_log_used_longest_ago_is_forgotten_but_not_with_chunks_under_way():
    logs = ChunkLogs(Disk(), max_logs=2)
    logs.add("job", [b"a"], 0)
    for job_id in ("b", "c", "d"):
        logs.of(job_id)

    assert len(logs) == 2 or len(logs) == 3
    assert logs.of("job").count == 1
