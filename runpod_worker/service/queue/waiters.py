"""Requests that wait for a job, and the timer of the service. Both wake by events; neither polls.

Everything runs in one event loop, so code between two awaits is atomic.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Waiters(Generic[T, R]):
    """Requests that wait for a value, by key; the oldest first. Each operation on one of them costs O(1)."""

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[asyncio.Future[T | None], R | None]] = {}
        self.closed = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def notify(self, key: str, value: T | None) -> None:
        """Wake all requests that wait on `key` with `value`. After None they read the job themselves."""
        for future in self._waiting.pop(key, ()):
            resolve(future, value)

    async def wait(self, key: str, timeout_s: float, request: R | None = None) -> T | None:
        """Wait for the next value of `key`; None after `timeout_s`, or when the service drains."""
        if timeout_s <= 0 or self.closed:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T | None] = loop.create_future()
        self._waiting.setdefault(key, OrderedDict())[future] = request
        timer = loop.call_later(timeout_s, self._expire, key, future)
        try:
            return await future
        finally:
            timer.cancel()
            self._remove(key, future)

    def close(self) -> None:
        """Wake all requests with None, and let later requests return without waiting."""
        self.closed = True
        for key in list(self._waiting):
            self.notify(key, None)

    def _expire(self, key: str, future: asyncio.Future[T | None]) -> None:
        """Wake the request with None, unless it was removed: then its remover wakes it."""
        if self._remove(key, future):
            resolve(future, None)

    def _remove(self, key: str, future: asyncio.Future[T | None]) -> bool:
        waiting = self._waiting.get(key)
        if waiting is None or future not in waiting:
            return False
        del waiting[future]
        if not waiting:
            del self._waiting[key]
        return True


def resolve(future: asyncio.Future[T], value: T) -> None:
    """Set the result of the future, unless it is done."""
    if not future.done():
        future.set_result(value)


class DeadlineTimer:
    """Fires at the earliest time that it was armed for."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self._fires_at = math.inf
        self._late_s = 0.0
        self._event = asyncio.Event()

    def arm(self, at: float | None) -> None:
        """Fire at `at`, or at an earlier time if armed for one."""
        if at is None or at >= self._at:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._note_delay()
        self._at = at
        now = self._now()
        self._fires_at = max(now + 0.001, at)
        self._handle = asyncio.get_running_loop().call_later(self._fires_at - now, self._fire)

    async def wait(self) -> float:
        """Wait until the timer fires. Return how late it was, in seconds: for so long this process did not run."""
        await self._event.wait()
        self._event.clear()
        self._at = math.inf
        late_s, self._late_s = self._late_s, 0.0
        return late_s

    def _fire(self) -> None:
        self._note_delay()
        self._fires_at = math.inf
        self._event.set()

    def _note_delay(self) -> None:
        self._late_s = max(self._late_s, self._now() - self._fires_at)
