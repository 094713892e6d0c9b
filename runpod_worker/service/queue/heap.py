"""A priority queue of ids that can be moved and removed."""

from __future__ import annotations

import heapq
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)


class LazyHeap(Generic[K]):
    """Ids in the order of their keys. Every operation costs O(log n).

    The heap is cleaned lazily. Each id has an entry whose key is at most its true key. An entry with a wrong key is
    replaced or dropped when it reaches the top. So a larger key, which each heartbeat sets, costs nothing at first.
    """

    def __init__(self) -> None:
        self._keys: dict[str, K] = {}
        self._heap: list[tuple[K, str]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, id_: str, key: K) -> None:
        """Add the id, or move it."""
        old = self._keys.get(id_)
        self._keys[id_] = key
        if old is None or key < old:
            heapq.heappush(self._heap, (key, id_))
            if len(self._heap) > 2 * len(self._keys) + 64:  # wrong entries far from the top would never be dropped
                self._heap = [(key, id_) for id_, key in self._keys.items()]
                heapq.heapify(self._heap)

    def drop(self, id_: str) -> None:
        """Remove the id, if the heap has it."""
        self._keys.pop(id_, None)

    def first(self) -> tuple[K, str] | None:
        """Return the lowest key and its id."""
        while self._heap:
            key, id_ = self._heap[0]
            true_key = self._keys.get(id_)
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
