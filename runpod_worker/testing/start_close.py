"""A stress test for classes with `start` and `close`. After River's `startstoptest`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

MAX_TURNS = 8
"""`start` is interrupted after each number of turns of the event loop up to this one."""

TIMEOUT_S = 20.0


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
