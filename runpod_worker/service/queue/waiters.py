"""How requests wait: on a job, for a job, on the clock. All of it wakes by events; nothing here polls.

Everything runs in one event loop, so what happens between two awaits is atomic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Started(Awaitable[T]):
    """A coroutine that has run up to its first await, in the task that will await the rest."""

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._pending: Any = None
        self._result: list[T] = []
        self._error: Exception | None = None
        try:
            self._advance(coro.send, None)
        except Exception as exc:
            self._error = exc

    def __await__(self) -> Generator[Any, Any, T]:
        if self._error is not None:
            raise self._error
        while not self._result:
            try:
                sent = yield self._pending
            except BaseException as exc:  # errors and cancellation belong to the coroutine
                self._advance(self._coro.throw, exc)
            else:
                self._advance(self._coro.send, sent)
        return self._result[0]

    def _advance(self, step: Callable[[Any], Any], value: Any) -> None:
        try:
            self._pending = step(value)
        except StopIteration as stop:
            self._result.append(stop.value)


def started(coro: Coroutine[Any, Any, T]) -> Awaitable[T]:
    """Run `coro` up to its first await now; await the result, in the same task, for the rest.

    A store decides a swap before its first await: started one after the other, several swaps are decided here and now
    and share one commit, without a task for each.
    """
    return _Started(coro)


async def together(coros: list[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, started at once and in order. The first error is raised after all have ended."""
    if len(coros) == 1:
        return [await coros[0]]
    waiting = [started(coro) for coro in coros]
    results: list[T] = []
    failure: Exception | None = None
    for one in waiting:
        try:
            results.append(await one)
        except Exception as exc:  # the others must be awaited first; raised below
            failure = failure or exc
    if failure is not None:
        raise failure
    return results


class Bells(Generic[T]):
    """Requests that wait for news of one job."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[T | None]]] = {}
        self._silenced = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ring(self, key: str, news: T) -> None:
        """Wake everyone who waits on `key`, with `news`."""
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(news)

    async def wait(self, key: str, timeout: float) -> T | None:
        """The next news of `key`; None after `timeout` seconds, or when the service drains."""
        if timeout <= 0 or self._silenced:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T | None] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        timer = loop.call_later(timeout, resolve, future, None)
        try:
            return await future
        finally:
            timer.cancel()
            self._leave(key, future)

    def silence(self) -> None:
        """Let everyone go, now and from now on."""
        self._silenced = True
        for futures in list(self._waiting.values()):
            for future in futures:
                resolve(future, None)

    def _leave(self, key: str, future: asyncio.Future[T | None]) -> None:
        waiting = self._waiting.get(key)
        if waiting is None or future not in waiting:
            return
        waiting.remove(future)
        if not waiting:
            del self._waiting[key]


def resolve(future: asyncio.Future[T | None], news: T | None) -> None:
    """Give the future its result, unless it has one or nobody waits for it any more."""
    if not future.done():
        future.set_result(news)


class Alarm:
    """An event that the clock sets at the earliest time it was armed for."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._event = asyncio.Event()

    def arm(self, at: float | None) -> None:
        """Go off at `at` (or before, if armed so already)."""
        if at is None or (self._at is not None and self._at <= at):
            return
        self.disarm()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.001, at - self._now()), self._event.set)

    def disarm(self) -> None:
        """Forget the time it was armed for."""
        if self._timer is not None:
            self._timer.cancel()
        self._at = self._timer = None

    async def wait(self) -> None:
        """Sleep until it goes off; then it is disarmed."""
        await self._event.wait()
        self._event.clear()
        self.disarm()
