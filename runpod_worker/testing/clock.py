"""A clock that stands until a test moves it, for code that takes a clock and for an event loop's timers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

SETTLE_TURNS = 50
"""`advance` gives the woken tasks this many turns of the event loop: enough for a chain of as many awaits."""


class ManualClock:
    """Time that only `advance` moves. Calling it returns the time in seconds since the epoch.

    Pass it where a clock is taken: `InProcessService(now=clock)`. Inside `with clock.driving():` the running event loop
    takes its time from it too: `asyncio.sleep`, timeouts and `call_later` wait for `advance`. Sockets still work.
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
        """Let the tasks that can run do so, move the time, and return once the tasks that it woke have run.

        Timers fire in the order of their times, all at the new time. To let one timer set the next, advance in steps.
        """
        if seconds < 0:
            raise ValueError(f"seconds: expected no negative number, got {seconds}")
        await _settle()
        self._elapsed += seconds
        await _settle()

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Let the running event loop, which must be asyncio's own, take its time from this clock."""
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
