"""Flow control: how many bytes of one job's chunks and files may be in flight.

Bytes are in flight from the moment they go to the agent until the agent acknowledges them (message WindowUpdate). A job
that has more in flight than its window waits. Each job has its own window, so a slow stream delays only its own
generator, and no chunks, outcomes or stops of other jobs. A stop ends every wait, because the service drops the chunks
of a stopped job.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

from runpod_worker.core.protocol import MIB

MIN_WINDOW = 256 * 1024
"""Bytes. No job's window is smaller, however many slots there are."""

MAX_WINDOW = 16 * MIB
"""Bytes. The windows of all slots together; one slot has all of it."""


def window_size(slots: int) -> int:
    """The window of each slot, in bytes."""
    return max(MIN_WINDOW, MAX_WINDOW // slots)


class FlowWindow:
    """The window of a job. Without a size it is always open, for runs in which no agent acknowledges bytes."""

    __slots__ = ("__weakref__", "_in_flight", "_lock", "_size", "_waiting")

    def __init__(self, size: float = math.inf) -> None:
        self._size = size
        self._in_flight = 0
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], object]] = []

    @property
    def is_open(self) -> bool:
        """Whether the job may send more."""
        return self._in_flight <= self._size

    def add(self, size: int) -> bool:
        """Count bytes that go to the agent. Returns whether the window is open still."""
        with self._lock:
            self._in_flight += size
        return self._in_flight <= self._size

    def ack(self, size: int) -> None:
        """Count bytes that the agent acknowledged."""
        with self._lock:
            self._in_flight -= size
        self._wake()

    def close(self) -> None:
        """End every wait, now and later: the job has to stop."""
        with self._lock:
            self._size = math.inf
        self._wake()

    def wait(self) -> None:
        """Wait in a thread until the window is open."""
        if not self.is_open:
            opened = threading.Event()
            self.when_open(opened.set)
            opened.wait()

    async def wait_async(self) -> None:
        """Wait in a task until the window is open."""
        if not self.is_open:
            loop, opened = asyncio.get_running_loop(), asyncio.Event()
            self.when_open(lambda: loop.call_soon_threadsafe(opened.set))
            await opened.wait()

    def when_open(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the window is open: now, or later in the thread that opens it."""
        with self._lock:
            if not self.is_open:
                self._waiting.append(callback)
                return
        callback()

    def _wake(self) -> None:
        if not self._waiting or not self.is_open:
            return
        with self._lock:
            callbacks, self._waiting = self._waiting, []
        for callback in callbacks:
            callback()
