"""Waits for moments that the code under test reports through a `core.testsignal.TestSignal`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from runpod_worker.core.testsignal import TestSignal

T = TypeVar("T")


@contextmanager
def listening(signal: TestSignal[T]) -> Iterator[asyncio.Queue[T]]:
    """Queue the values that `signal` sends, from any thread: `with listening(signal) as sent: await sent.get()`."""
    loop, sent = asyncio.get_running_loop(), asyncio.Queue[T]()
    signal.listen(lambda value: loop.call_soon_threadsafe(sent.put_nowait, value))
    try:
        yield sent
    finally:
        signal.listen(None)
