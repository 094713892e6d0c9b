"""A priority queue of ids that can be moved and removed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)


class LazyHeap(Generic[K]):
    """Ids in the order of their keys. Every operation costs O(log n).

    The heap is cleaned lazily. Each id has an entry whose key is at most its true key. An entry with a wrong key is
    replaced or dropped when it reaches the top. So only a new or a lower key has to be pushed. A larger key, such as
    each heartbeat sets, costs nothing until the old entry reaches the top.

    Args:
        key_of: returns the true key of an id, None if the id was removed.
    """

    def __init__(self, key_of: Callable[[str], K | None]) -> None:
        self._key_of = key_of
        self._heap: list[tuple[K, str]] = []

    def push(self, id_: str, key: K, count: int) -> None:
        """Add the id, or lower its key. `count` is the number of ids that have a key."""
        heapq.heappush(self._heap, (key, id_))
        if len(self._heap) > 2 * count + 64:  # wrong entries far from the top would never be dropped
            keys = {id_: self._key_of(id_) for _, id_ in self._heap}
            self._heap = [(key, id_) for id_, key in keys.items() if key is not None]
            heapq.heapify(self._heap)

    def first(self) -> tuple[K, str] | None:
        """Return the lowest key and its id."""
        while self._heap:
            key, id_ = self._heap[0]
            true_key = self._key_of(id_)
            if true_key == key:
                return self._heap[0]
            if true_key is None or true_key < key:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (true_key, id_))
        return None

    def first_ids(self, limit: int, up_to: K | None = None) -> list[str]:
        """Return at most `limit` ids with the lowest keys; with `up_to`, only keys up to it."""
        popped: list[tuple[K, str]] = []
        while len(popped) < limit and (top := self.first()) is not None and (up_to is None or top[0] <= up_to):
            heapq.heappop(self._heap)
            if not popped or popped[-1] != top:  # an id may have two entries with the same key
                popped.append(top)
        for entry in popped:
            heapq.heappush(self._heap, entry)
        return [id_ for _, id_ in popped]
