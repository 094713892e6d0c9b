"""What the SQLite store keeps in memory of things whose home is the disk: small bodies, and the newest chunks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

HOT_BODY_BYTES = 64 * 2**10
HOT_BYTES = 64 * 2**20

Key = tuple[str, int]
"""Table and number of the job."""


class HotBodies:
    """The bodies used last, small ones only; None is kept too and means that there is no such body."""

    def __init__(self, limit: int = HOT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._bodies: OrderedDict[Key, bytes | None] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._bodies

    def get(self, key: Key) -> bytes | None:
        """The body under this key, which must be here."""
        self._bodies.move_to_end(key)
        return self._bodies[key]

    def put(self, key: Key, body: bytes | None) -> None:
        """Keep the body if it is small; in any case forget the one before it."""
        self.drop(key)
        if body is not None and len(body) > HOT_BODY_BYTES:
            return
        self._bodies[key] = body
        self._bytes += _weight(body)
        while self._bytes > self._limit:
            self._bytes -= _weight(self._bodies.popitem(last=False)[1])

    def drop(self, key: Key) -> None:
        """Forget the body."""
        if key in self._bodies:
            self._bytes -= _weight(self._bodies.pop(key))


def _weight(body: bytes | None) -> int:
    return 200 + (0 if body is None else len(body))  # the entry itself costs about as much


class Stream:
    """The chunks of one job: those before number `first` are on disk only, those before `safe` are written."""

    __slots__ = ("first", "hot", "safe")

    def __init__(self, first: int) -> None:
        self.first = first
        self.safe = first
        self.hot: list[bytes] = []

    @property
    def count(self) -> int:
        """How many chunks there are, with those whose write is under way."""
        return self.first + len(self.hot)

    def cut(self, count: int) -> int:
        """Forget the chunks from number `count` on: they could not be written. Returns the bytes freed."""
        gone = self.hot[count - self.first :]
        del self.hot[count - self.first :]
        return sum(map(len, gone))

    def cool(self) -> int:
        """Leave what is written to the disk. Returns the bytes freed."""
        gone = self.hot[: self.safe - self.first]
        del self.hot[: self.safe - self.first]
        self.first = self.safe
        return sum(map(len, gone))


class Streams:
    """The streams in use; together they keep at most `limit` bytes of written chunks in memory."""

    def __init__(self, count_on_disk: Callable[[int], int], limit: int = HOT_BYTES) -> None:
        self._count_on_disk = count_on_disk
        self._limit = limit
        self._bytes = 0
        self._streams: OrderedDict[int, Stream] = OrderedDict()

    def of(self, seq: int) -> Stream:
        """The stream of the job with this number."""
        stream = self._streams.get(seq)
        if stream is None:
            stream = self._streams[seq] = Stream(self._count_on_disk(seq))
        return stream

    def extend(self, seq: int, chunks: list[bytes]) -> None:
        """Add chunks whose write is under way."""
        self._streams.move_to_end(seq)
        self._streams[seq].hot.extend(chunks)
        self._bytes += sum(map(len, chunks))

    def wrote(self, stream: Stream, count: int) -> None:
        """The first `count` chunks of the stream are on disk."""
        stream.safe = max(stream.safe, count)
        if self._bytes > self._limit:
            for old in self._streams.values():
                self._bytes -= old.cool()
                if self._bytes <= self._limit // 2:
                    break

    def cut(self, stream: Stream, count: int) -> None:
        """The chunks from number `count` on could not be written."""
        self._bytes -= stream.cut(count)

    def replace(self, seq: int, stream: Stream) -> Stream | None:
        """Put another stream in the place of the job's; returns the one that was there."""
        old = self._streams.get(seq)
        if old is not None:
            self._bytes -= sum(map(len, old.hot))
        self._streams[seq] = stream
        self._bytes += sum(map(len, stream.hot))
        return old

    def drop(self, seq: int) -> None:
        """Forget the job's stream; its chunks on disk are not touched."""
        stream = self._streams.pop(seq, None)
        if stream is not None:
            self._bytes -= sum(map(len, stream.hot))
