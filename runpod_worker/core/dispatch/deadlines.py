"""Deadlines by key."""

from __future__ import annotations

import math

Key = str | int


class Deadlines:
    """One deadline for each key. Setting and clearing take the same time for any number of keys."""

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._earliest = math.inf

    @property
    def earliest(self) -> float:
        """A lower bound of all deadlines. After a clear it may be too early; `pop_due` then returns nothing."""
        return self._earliest if self._times else math.inf

    def set(self, key: Key, at: float) -> None:
        """Set or replace the key's deadline."""
        self._times[key] = at
        self._earliest = min(self._earliest, at)

    def get(self, key: Key) -> float:
        """Return the key's deadline, infinity without one."""
        return self._times.get(key, math.inf)

    def clear(self, key: Key) -> None:
        """Remove the key's deadline, if it has one."""
        if self._times.pop(key, None) is not None and not self._times:
            self._earliest = math.inf

    def pop_due(self, now: float) -> list[Key]:
        """Remove and return the keys whose deadline has passed."""
        if now < self._earliest:
            return []
        due = [key for key, at in self._times.items() if at <= now]
        for key in due:
            del self._times[key]
        self._earliest = min(self._times.values(), default=math.inf)
        return due
