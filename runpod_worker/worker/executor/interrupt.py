"""Stops handlers, and no other code.

A guard calls a handler's code. It stops only the attempt whose code it is calling, and at most once. `Attempt.stop`
sets the reason and then reads the guard; a guard registers itself and then reads the reason. So no stop is lost.

The effect of a stop depends on where the handler runs. In the main thread a signal raises JobStopped even inside
blocking calls. A task of an event loop is cancelled. A thread among several cannot be interrupted safely: there
JobStopped comes with the next `job.*` call or yield, and a handler without any is killed with its process after the
grace time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import runpod_worker
from runpod_worker.core.errors import JobStopped
from runpod_worker.worker.executor.attempt import Attempt, Guard, now
from runpod_worker.worker.handler.declaration import WRAPPING_FILES

P = ParamSpec("P")
T = TypeVar("T")

STOP_SIGNAL: signal.Signals | None = getattr(signal, "SIGURG", None)
"""Ignored by default, so a late one does no harm, and hardly used by anything else. None on Windows, where a handler in
the main thread stops like one in any other thread."""

MIN_PAUSE_S = 0.002
MAX_PAUSE_S = 0.5
"""Seconds between two signals for one attempt. The pause grows, because signals only disturb a long call in C."""

_OWN_FILES = (str(Path(runpod_worker.__file__).parent), logging.__file__)


class SlotThread(Guard):
    """Calls a handler in one thread of several. JobStopped comes with the next `job.*` call or yield."""

    def __init__(self) -> None:
        self._attempt: Attempt | None = None
        self._thread = threading.get_ident()

    def call(self, attempt: Attempt, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call code of this attempt's handler. Raises the handler's exception, or JobStopped."""
        try:
            attempt.guard = self
            self._attempt = attempt
            attempt.check()
            return function(*args, **kwargs)
        finally:  # JobStopped from a signal may leave this block before its first line; `_raise` has reset `_attempt`
            self._attempt = None
            attempt.guard = None

    def close(self) -> None:
        """Restore the previous signal handler."""

    def raise_pending_stop(self, attempt: Attempt) -> None:
        if self._attempt is attempt and threading.get_ident() == self._thread:
            self._raise(attempt)

    def _raise(self, attempt: Attempt) -> None:
        if attempt.stop_reason is not None:
            self._attempt = None  # once only, so that the handler can clean up
            raise JobStopped(attempt.stop_reason)


class MainThread(SlotThread):
    """Calls a handler in the main thread, where a signal breaks it out of blocking calls such as `time.sleep`."""

    def __init__(self) -> None:
        super().__init__()
        self._deferred = False
        self._before = None if STOP_SIGNAL is None else signal.signal(STOP_SIGNAL, self._on_signal)

    def close(self) -> None:
        if STOP_SIGNAL is not None:
            signal.signal(STOP_SIGNAL, self._before)

    def interrupt(self, attempt: Attempt) -> None:
        thread = threading.Thread(target=self._signal_until_stopped, args=(attempt,), name="runpod-worker-stop")
        thread.daemon = True
        thread.start()

    def _signal_until_stopped(self, attempt: Attempt) -> None:
        """Signal until the handler's code has been left.

        One signal is not enough. Python checks for signals between its instructions, so a signal between the last check
        and a blocking call is noticed only after that call.
        """
        pause = MIN_PAUSE_S
        while self._attempt is attempt and STOP_SIGNAL is not None:
            signal.pthread_kill(self._thread, STOP_SIGNAL)
            time.sleep(pause)
            pause = MIN_PAUSE_S if self._deferred else min(2 * pause, MAX_PAUSE_S)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        attempt = self._attempt
        if attempt is not None:
            self._deferred = not _is_interruptible(frame)
            if not self._deferred:
                self._raise(attempt)


@contextmanager
def waking_on_signals(wake: Callable[[], None]) -> Iterator[None]:
    """Call `wake` in another thread whenever a signal arrives, so that the main thread leaves its wait. Use it there.

    Python calls a signal's handler in the main thread, between two instructions. A signal between the last check and a
    blocking wait is noticed only after that wait, and an idle main thread waits until the next job: SIGTERM would be
    lost. So the interpreter also writes the number of each signal to a pipe.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_wake, args=(read_end, wake), name="runpod-worker-signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write_end)


def _wake(read_end: int, wake: Callable[[], None]) -> None:
    while os.read(read_end, 512):
        wake()
    os.close(read_end)


def guard_here() -> SlotThread:
    """The guard for handlers in this thread."""
    return MainThread() if threading.current_thread() is threading.main_thread() else SlotThread()


class Task(Guard):
    """Calls a handler in a task of an event loop. A stop cancels the task, so `job.*` calls raise nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None

    async def call(self, attempt: Attempt, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call code of this attempt's handler, and await the result if it can be awaited."""
        self._task = asyncio.current_task()
        attempt.guard = self
        try:
            attempt.check()
            value = function(*args, **kwargs)
            return await value if hasattr(value, "__await__") else value
        finally:
            attempt.guard = self._task = None

    def interrupt(self, attempt: Attempt) -> None:
        self._loop.call_soon_threadsafe(self._cancel, attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.guard is self and self._task is not None:
            self._task.cancel(attempt.stop_reason)


def _is_interruptible(frame: FrameType | None) -> bool:
    """Whether the main thread executes the handler's own code, not ours (or logging's) on its behalf.

    Do not interrupt our code: it may be in the middle of a message on the channel, or hold a lock. The next signal
    comes soon.
    """
    while frame is not None and frame.f_code is not SlotThread.call.__code__:
        file = frame.f_code.co_filename
        if file.startswith(_OWN_FILES) and file not in WRAPPING_FILES:
            return False
        frame = frame.f_back
    return frame is not None


class Deadlines:
    """Stops the jobs whose deadline has passed, in a thread. The first job with a deadline starts it."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._changed = threading.Condition()
        self._wake_at = math.inf
        self._thread: threading.Thread | None = None
        self._open = True

    def add(self, attempt: Attempt) -> None:
        """Stop the job at its deadline."""
        if attempt.deadline is None:
            return
        self._attempts[attempt.key] = attempt
        if attempt.deadline < self._wake_at:  # else the thread wakes early enough
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="runpod-worker-deadlines", daemon=True)
                    self._thread.start()
                self._changed.notify()

    def remove(self, attempt: Attempt) -> None:
        """Remove a job that has ended."""
        if attempt.deadline is not None:
            self._attempts.pop(attempt.key, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        with self._changed:
            while self._open:
                self._wake_at = math.inf  # from here on `add` takes the lock, so it notifies once this thread waits
                for attempt in list(self._attempts.values()):
                    self._check(attempt)
                self._changed.wait(None if self._wake_at == math.inf else max(0.0, self._wake_at - now()))

    def _check(self, attempt: Attempt) -> None:
        if attempt.deadline is None or attempt.stop_reason is not None:
            return
        if attempt.deadline > now():
            self._wake_at = min(self._wake_at, attempt.deadline)
        else:
            attempt.stop(attempt.deadline_error, timed_out=True)
