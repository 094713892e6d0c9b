"""The event loops of our processes, and one in a background thread for code that has none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: uvloop's where uvloop is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def loop_factory(uvloop: bool | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """The function that makes a handler's event loop. False: asyncio's own loop, which can be patched."""
    return asyncio.new_event_loop if uvloop is False else new_event_loop


class BackgroundLoop:
    """Runs coroutines as tasks of one loop, in a daemon thread that the first of them starts. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run the coroutine as a task. Cancelling the future cancels the task."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():  # a forked child has no such thread
                self._loop = self._start_thread()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and wait for its result."""
        return self.start(work).result()

    def close(self, timeout_s: float) -> None:
        """Cancel all tasks and end the thread; wait for that at most this long."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None and self._pid == os.getpid():
            loop.call_soon_threadsafe(self._stop.set)
            thread.join(timeout_s)

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        runner = asyncio.Runner(loop_factory=new_event_loop)
        self._pid, self._stop = os.getpid(), asyncio.Event()
        loop = runner.get_loop()
        work = (runner, self._stop)
        self._thread = threading.Thread(target=_serve, args=work, name="runpod-worker-background", daemon=True)
        self._thread.start()
        return loop


def _serve(runner: asyncio.Runner, stop: asyncio.Event) -> None:
    with runner:
        runner.run(stop.wait())


async def run_in_daemon_thread(function: Callable[[], T]) -> T:
    """Run the function in a thread that does not delay the end of the process."""
    result: concurrent.futures.Future[T] = concurrent.futures.Future()

    def call() -> None:
        with suppress(concurrent.futures.InvalidStateError, RuntimeError):  # nothing waits, or its loop has ended
            try:
                result.set_result(function())
            except Exception as error:
                result.set_exception(error)

    threading.Thread(target=call, name="runpod-worker-daemon", daemon=True).start()
    return await asyncio.wrap_future(result)
