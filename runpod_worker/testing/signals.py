"""Waits for moments that the code under test reports through a `core.testsignal.TestSignal`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from runpod_worker.core.testsignal import TestSignal

T = TypeVar("T")

WAIT_S = 20.0
"""A moment that does not come within this time fails the test."""


class Moments(Generic[T]):
    """The values that a signal has sent, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, value: T) -> None:
        """Add a value, from any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, value)

    async def next(self, timeout_s: float = WAIT_S) -> T:
        """Return the next value. Raises TimeoutError if none comes in time."""
        async with asyncio.timeout(timeout_s):
            return await self._queue.get()


@contextmanager
def listening(signal: TestSignal[T]) -> Iterator[Moments[T]]:
    """Collect what `signal` sends: `with listening(webhooks.delivered) as moments: ...; await moments.next()`."""
    moments: Moments[T] = Moments()
    signal.listen(moments.put)
    try:
        yield moments
    finally:
        signal.listen(None)
