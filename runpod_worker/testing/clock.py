"""A clock that only the test advances, for code that takes a clock and for the timers of an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

SETTLE_TURNS = 50
"""`advance` gives tasks this many turns of the event loop, so a chain of up to this many awaits completes."""


class ManualClock:
    """A clock that only `advance` moves. Calling it returns the time in seconds since the epoch.

    Pass it as a clock: `InProcessService(now=clock)`. Inside `with clock.driving():` the running event loop uses it
    too, so `asyncio.sleep`, timeouts and `call_later` wait for `advance`. Sockets still work.
    """

    def __init__(self, wall: float = 1_000_000.0) -> None:
        self._wall = wall
        self._elapsed = 0.0

    def __call__(self) -> float:
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    async def advance(self, seconds: float) -> None:
        """Let ready tasks run, move the time, and let the woken tasks run.

        Timers fire in the order of their times, all at the new time. To let one timer set the next, advance in steps.
        """
        if seconds < 0:
            raise ValueError(f"seconds: expected no negative number, got {seconds}")
        await _settle()
        self._elapsed += seconds
        await _settle()

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Let the running event loop use this clock. The loop must be asyncio's own."""
        loop = asyncio.get_running_loop()
        real, start = loop.time, loop.time()
        loop.time = lambda: start + self._elapsed  # type: ignore[method-assign]
        try:
            yield
        finally:
            loop.time = real  # type: ignore[method-assign]


async def _settle() -> None:
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
