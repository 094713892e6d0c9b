"""What stays in memory of bodies and chunks, and what goes when there is too much of it."""

from runpod_worker.service.journal.cache import HOT_BODY_BYTES, HotBodies, Streams


def test_small_bodies_are_kept_and_large_ones_are_not():
    hot = HotBodies()
    hot.put(("outputs", 1), b"small")
    hot.put(("outputs", 2), b"x" * (HOT_BODY_BYTES + 1))
    hot.put(("outputs", 3), None)

    assert hot.get(("outputs", 1)) == b"small"
    assert ("outputs", 2) not in hot
    assert hot.get(("outputs", 3)) is None


def test_large_body_drives_out_the_small_one_before_it():
    hot = HotBodies()
    hot.put(("outputs", 1), b"old")
    hot.put(("outputs", 1), b"x" * (HOT_BODY_BYTES + 1))

    assert ("outputs", 1) not in hot


def test_body_that_was_used_longest_ago_goes_first():
    hot = HotBodies(limit=3 * 1200)
    for number in range(3):
        hot.put(("requests", number), b"x" * 1000)
    hot.get(("requests", 0))
    hot.put(("requests", 3), b"x" * 1000)

    assert [number for number in range(4) if ("requests", number) in hot] == [0, 2, 3]


def test_written_chunks_go_to_the_disk_when_there_are_too_many():
    streams = Streams(lambda seq: 0, limit=100)
    old, new = streams.of(1), streams.of(2)
    streams.extend(1, [b"x" * 60, b"y" * 10])
    streams.wrote(old, 1)
    streams.extend(2, [b"z" * 60])
    streams.wrote(new, 1)

    assert (old.first, old.hot, old.count) == (1, [b"y" * 10], 2), "what is not written stays"
    assert (new.first, new.count) == (1, 1)


def test_stream_starts_behind_what_is_on_disk():
    streams = Streams(lambda seq: 7)

    assert streams.of(1).count == 7


def test_chunks_that_could_not_be_written_are_cut_off():
    streams = Streams(lambda seq: 3)
    stream = streams.of(1)
    streams.extend(1, [b"a", b"b"])
    streams.cut(stream, 4)

    assert (stream.count, stream.hot) == (4, [b"a"])
