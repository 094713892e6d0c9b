"""Caches recently used bodies, because most are read again soon after they are written."""

from __future__ import annotations

from collections import OrderedDict

from runpod_worker.service.journal.port import Body, Journal

MAX_BODY_BYTES = 64 * 2**10
"""Larger bodies are not cached: each would displace many small ones."""

MAX_CACHE_BYTES = 64 * 2**20
"""Above this, the least recently used bodies are dropped."""

Key = tuple[Body, str]


class BodyCache:
    """Committed bodies by kind and job. It also caches None, which means that the body does not exist.

    If the journal keeps nothing, no body is dropped.
    """

    def __init__(self, journal: Journal, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._journal = journal
        self._max_bytes = max_bytes
        self._bytes = 0
        self._bodies: OrderedDict[Key, bytes | None] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._bodies

    async def read(self, key: Key) -> bytes | None:
        """Return the body, from the journal if it is not cached."""
        if key in self._bodies:
            self._bodies.move_to_end(key)
            return self._bodies[key]
        return await self._journal.body(*key)

    def put(self, key: Key, body: bytes | None) -> None:
        """Replace the body; a large one is not cached."""
        self._drop(key)
        if self._journal.keeps and body is not None and len(body) > MAX_BODY_BYTES:
            return
        self._bodies[key] = body
        self._bytes += _weight(body)
        while self._bytes > self._max_bytes and self._journal.keeps:
            self._bytes -= _weight(self._bodies.popitem(last=False)[1])

    def drop(self, job_id: str) -> None:
        """Drop the bodies of the job."""
        self._drop(("requests", job_id))
        self._drop(("outputs", job_id))

    def _drop(self, key: Key) -> None:
        if key in self._bodies:
            self._bytes -= _weight(self._bodies.pop(key))


def _weight(body: bytes | None) -> int:
    return 200 + (0 if body is None else len(body))  # the entry itself costs about as much
