"""Interrupt a handler where it is, and nothing but the handler.

A guard calls user code in a way that another thread can end: JobStopped is raised inside it, only while user code of
exactly that job runs, and at most once. A guard is set before the job's reason to stop is looked at, and the reason is
set before the guard is looked at, so that no stop falls between the two.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

import runpod_worker
from runpod_worker.core.errors import JobStopped
from runpod_worker.worker.executor.attempt import Attempt

P = ParamSpec("P")
T = TypeVar("T")

STOP_SIGNAL: signal.Signals | None = getattr(signal, "SIGURG", None)
"""Ignored by default, so that a late one can do no harm, and used by hardly anything else. None on Windows: there a
handler stops at its next call of a method of its job."""

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.5
"""Between two signals to the same job; it grows, because a call that keeps Python out is only disturbed by them."""

_NOT_HERE = (str(Path(runpod_worker.__file__).parent), logging.__file__)


class MainThread:
    """User code in the main thread: a signal breaks it out of blocking calls such as `time.sleep`."""

    def __init__(self) -> None:
        self._attempt: Attempt | None = None
        self._deferred = False
        self._thread = threading.main_thread().ident
        self._before = None if STOP_SIGNAL is None else signal.signal(STOP_SIGNAL, self._on_signal)

    def close(self) -> None:
        """Give the signal back."""
        if STOP_SIGNAL is not None:
            signal.signal(STOP_SIGNAL, self._before)

    def call(self, attempt: Attempt, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call user code of this job. Raises what it raises, or JobStopped."""
        try:
            attempt.guard = self
            self._attempt = attempt
            attempt.check()
            return function(*args, **kwargs)
        finally:  # a signal before this line is handled raises out of here, and has disarmed the guard itself
            self._attempt = None
            attempt.guard = None

    def interrupt(self, attempt: Attempt) -> None:
        threading.Thread(
            target=self._signal_until_stopped, args=(attempt,), name="runpod-worker-stop", daemon=True
        ).start()

    def _signal_until_stopped(self, attempt: Attempt) -> None:
        """Signal until the handler was left.

        Once is not enough: Python looks for signals between its instructions, so one that arrives when the last look is
        over and the blocking call is not yet entered is only noticed after that call.
        """
        pause = FIRST_PAUSE_S
        while self._attempt is attempt and self._thread is not None and STOP_SIGNAL is not None:
            signal.pthread_kill(self._thread, STOP_SIGNAL)
            time.sleep(pause)
            pause = FIRST_PAUSE_S if self._deferred else min(2 * pause, LONGEST_PAUSE_S)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        attempt = self._attempt
        if attempt is None or attempt.reason is None:
            return
        self._deferred = not _interruptible(frame)
        if not self._deferred:
            self._raise(attempt.reason)

    def raise_pending_stop(self, attempt: Attempt) -> None:
        if self._attempt is attempt and attempt.reason is not None and threading.get_ident() == self._thread:
            self._raise(attempt.reason)

    def _raise(self, reason: str) -> NoReturn:
        self._attempt = None  # once only
        raise JobStopped(reason)


class PoolThread:
    """User code in one thread of several: the exception comes with the next line of Python the thread executes."""

    def __init__(self) -> None:
        self._attempt: Attempt | None = None
        self._thread = 0
        self._sent = False
        self._lock = threading.Lock()

    def call(self, attempt: Attempt, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call user code of this job. Raises what it raises, or JobStopped."""
        try:
            try:
                self._arm(attempt)
                attempt.check()
                return function(*args, **kwargs)
            finally:
                self._disarm(attempt)
        except JobStopped:
            self._disarm(attempt)  # the exception may have come inside the first one
            raise

    def interrupt(self, attempt: Attempt) -> None:
        with self._lock:
            if self._attempt is attempt and not self._sent:
                self._sent = True
                _raise_in(self._thread, JobStopped)

    def raise_pending_stop(self, attempt: Attempt) -> None:
        """The exception comes by itself: it never interrupts what ours has begun in C."""

    def _arm(self, attempt: Attempt) -> None:
        attempt.guard = self
        with self._lock:
            self._thread = threading.get_ident()
            self._sent = False
            self._attempt = attempt

    def _disarm(self, attempt: Attempt) -> None:
        with self._lock:
            self._attempt = None
            if self._sent:
                _raise_in(self._thread, None)  # what was not raised yet must not hit the next job
        attempt.guard = None


class Task:
    """User code awaited by a task of an event loop: the task is cancelled."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None

    async def call(self, attempt: Attempt, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call user code of this job and await what it returns, if that can be awaited."""
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

    def raise_pending_stop(self, attempt: Attempt) -> None:
        """The task is cancelled where it waits."""

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.guard is self and self._task is not None:
            self._task.cancel(attempt.reason)


def _interruptible(frame: FrameType | None) -> bool:
    """Whether the main thread executes the handler's own code, and none of ours (or of logging) on its behalf.

    What ours has begun must not be left half done: a frame on the channel, a lock. The next signal comes soon.
    """
    while frame is not None and frame.f_code is not MainThread.call.__code__:
        if frame.f_code.co_filename.startswith(_NOT_HERE):
            return False
        frame = frame.f_back
    return frame is not None


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
