"""A clock, the signals of `core.testsignal` made awaitable, and a stress test for `start` and `close`."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from runpod_worker.core.testsignal import TestSignal

T = TypeVar("T")

SETTLE_TURNS = 50
"""`advance` gives tasks this many turns of the event loop, so a chain of up to this many awaits completes."""

MAX_TIMERS = 1000
"""`advance` lets so many timers fire one after the other."""

MAX_TURNS = 8
"""`check_start_close` interrupts `start` after 0 turns of the event loop, after 1, and so on, below this number."""

TIMEOUT_S = 20.0


class ManualClock:
    """A clock that only `advance` and `step` move. Calling it returns the time in seconds since the epoch.

    Pass it as a clock: `InProcessService(now=clock)`. Inside `with clock.driving():` the running event loop uses it
    too, so `asyncio.sleep`, timeouts and `call_later` wait for `advance`. Sockets still work.
    `step` sets the wall clock as an administrator would: `monotonic` does not notice.
    """

    def __init__(self, wall: float = 1_000_000.0) -> None:
        self._wall = wall
        self._elapsed = 0.0
        self._driven: tuple[asyncio.AbstractEventLoop, float] | None = None

    def __call__(self) -> float:
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back by a negative number."""
        self._wall += seconds

    async def advance(self, seconds: float) -> None:
        """Let ready tasks run, move the time, and let the woken tasks run.

        Each timer of a driven loop fires at its own time, so one may set the next. After `MAX_TIMERS` the time moves to
        the end at once.
        """
        if seconds < 0:
            raise ValueError(f"seconds: expected no negative number, got {seconds}")
        await _settle()
        end = self._elapsed + seconds
        for _ in range(MAX_TIMERS):
            at = self._next_timer()
            if at > end:
                break
            self._elapsed = max(self._elapsed, at)
            await _settle()
        self._elapsed = end
        await _settle()

    def freeze(self, seconds: float) -> None:
        """Move the time while nothing runs, as for a process that is stopped and continued: timers fire late."""
        self._elapsed += seconds

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Let the running event loop use this clock. The loop must be asyncio's own."""
        loop = asyncio.get_running_loop()
        real, start = loop.time, loop.time()
        loop.time = lambda: start + self._elapsed  # type: ignore[method-assign]
        self._driven = loop, start
        try:
            yield
        finally:
            loop.time = real  # type: ignore[method-assign]
            self._driven = None

    def _next_timer(self) -> float:
        """Return when the next timer of the driven loop fires, by `monotonic`."""
        if self._driven is None:
            return math.inf
        loop, start = self._driven
        timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # asyncio shows it nowhere else
        return min((timer.when() - start for timer in timers if not timer.cancelled()), default=math.inf)


@contextmanager
def listening(signal: TestSignal[T]) -> Iterator[asyncio.Queue[T]]:
    """Queue the values that `signal` sends, from any thread: `with listening(signal) as sent: await sent.get()`."""
    loop, sent = asyncio.get_running_loop(), asyncio.Queue[T]()
    signal.listen(lambda value: loop.call_soon_threadsafe(sent.put_nowait, value))
    try:
        yield sent
    finally:
        signal.listen(None)


async def check_start_close(make: Callable[[], Any]) -> None:
    """Check a class that has `start` and `close`, coroutine functions or not; `make` returns a new object each time.

    1. `close` works before `start`.
    2. `close` works twice, and twice at the same time.
    3. `close` works after a `start` that was interrupted, at any point.
    4. After `close`, no task that the object created is left.

    Raises:
        AssertionError: a task is left.
        TimeoutError: a call does not return.
    """
    before = asyncio.all_tasks()
    async with asyncio.timeout(TIMEOUT_S):
        await _call(make().close)
        for at_once in (False, True):
            part = make()
            await _call(part.start)
            if at_once:
                await asyncio.gather(_call(part.close), _call(part.close))
            await _call(part.close)
            await _call(part.close)
        for turns in range(MAX_TURNS):
            part = make()
            starting = asyncio.create_task(_call(part.start))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await _call(part.close)
    left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
    if left:
        raise AssertionError(f"after close these tasks are left: {', '.join(sorted(left))}")


async def _call(method: Callable[[], Any]) -> None:
    result = method()
    if inspect.isawaitable(result):
        await result


async def _settle() -> None:
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
