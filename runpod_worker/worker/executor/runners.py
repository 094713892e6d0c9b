"""Runs attempts in slots: the main thread, several threads, or tasks of one event loop.

`submit` takes a prepared attempt from another thread. The runner runs each attempt that it can claim, and sends Started
and exactly one Done for it. `serve` returns after `close`, once everything submitted before is done.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Literal

from runpod_worker.config import WorkerSettings, channel_fd
from runpod_worker.core.dispatch.messages import SlotsChanged, ToAgent
from runpod_worker.core.errors import ChannelClosed
from runpod_worker.log import job_id, log
from runpod_worker.system import fcntl
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.interrupt import guard_here
from runpod_worker.worker.executor.invoke import Invoker
from runpod_worker.worker.handler.declaration import Handler

RESIZE_INTERVAL_S = 1.0
"""Interval of calls of the user's function for the number of slots, while jobs run."""

MAX_OUTPUT_WAIT_S = 0.05
"""Start a job after this time even if the agent has not read the output of the one before."""

OnEnded = Callable[[Attempt], None]


class Concurrency:
    """The number of slots; `adjust` may change it."""

    def __init__(self, slots: int, modifier: Callable[[int], Any] | None = None) -> None:
        self.slots = slots
        self._modifier = modifier

    @property
    def fixed(self) -> bool:
        """Whether the number never changes."""
        return self._modifier is None

    def adjust(self) -> int:
        """Call the user's function and return the number of slots. Errors and wrong values are logged, and ignored."""
        if self._modifier is None:
            return self.slots
        try:
            wanted = self._modifier(self.slots)
        except Exception:
            log.exception("concurrency.failed", extra={"slots": self.slots})
            return self.slots
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            about = {"expected": "int >= 1", "got": repr(wanted), "type": type(wanted).__name__, "slots": self.slots}
            log.error("concurrency.refused", extra=about)
            return self.slots
        if wanted != self.slots:
            log.info("concurrency.changed", extra={"before": self.slots, "slots": wanted})
        self.slots = wanted
        return wanted


def concurrency_of(handler: Handler, settings: WorkerSettings) -> Concurrency:
    """The number of slots of a worker with this handler.

    A function that blocks its thread has one slot, even with a modifier, because its code may not be safe in several
    threads. A number in the settings is an explicit choice, so it may open several threads.
    """
    if settings.concurrency is not None:
        return Concurrency(settings.concurrency)
    if handler.modifier is not None and not handler.kind.on_loop:
        instead = "make the handler async, or set RUNPOD_WORKER_CONCURRENCY"
        log.warning("concurrency.ignored", extra={"kind": str(handler.kind), "instead": instead})
        return Concurrency(handler.concurrency)
    concurrency = Concurrency(handler.concurrency, handler.modifier)
    concurrency.adjust()
    return concurrency


class ThreadRunner:
    """Slots that are threads. A single slot is the thread that calls `serve`."""

    def __init__(self, invoker: Invoker, on_ended: OnEnded, slots: int) -> None:
        self._invoker = invoker
        self._on_ended = on_ended
        self._slots = slots
        self._is_read = channel_fd() is not None
        """Whether an agent reads this process's standard error."""
        self._inbox: queue.SimpleQueue[Attempt | Literal["signal"] | None] = queue.SimpleQueue()
        self._ended_slots: queue.SimpleQueue[int] = queue.SimpleQueue()

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt as soon as a slot is free. From any thread."""
        self._inbox.put(attempt)

    def serve(self) -> None:
        """Run submitted attempts until `close`."""
        if self._slots == 1:
            self._serve_slot()
            return
        threads = [
            threading.Thread(target=self._serve_in_thread, name=f"runpod-worker-slot-{slot}", daemon=True)
            for slot in range(self._slots)
        ]
        for thread in threads:
            thread.start()
        running = self._slots
        while running > 0:
            running -= self._ended_slots.get()

    def wake(self) -> None:
        """Let the thread that calls `serve` run the handlers of signals that have arrived. From any thread."""
        if self._slots == 1:
            self._inbox.put("signal")
        else:
            self._ended_slots.put(0)

    def close(self) -> None:
        """Let `serve` return once everything submitted is done. From any thread."""
        for _ in range(self._slots):
            self._inbox.put(None)

    def _serve_in_thread(self) -> None:
        try:
            self._serve_slot()
        except ChannelClosed:
            log.debug("executor.agent_gone")  # the thread that reads the channel closes this runner
        finally:
            self._ended_slots.put(1)

    def _serve_slot(self) -> None:
        """Run one job after the other in this thread, until the inbox yields None."""
        unsent: list[ToAgent] = []
        with closing(guard_here()) as guard:
            while (attempt := self._next(unsent)) is not None:
                if self._slots == 1 and self._is_read:
                    wait_output_read()
                unsent.append(self._invoker.start(attempt))
                self._send(unsent)
                token = job_id.set(attempt.id)
                unsent.append(self._invoker.run(attempt, guard))
                job_id.reset(token)
                self._on_ended(attempt)

    def _next(self, unsent: list[ToAgent]) -> Attempt | None:
        """The next attempt that this slot can claim. If none is waiting, send the last Done before waiting for one."""
        while True:
            try:
                attempt = self._inbox.get_nowait()
            except queue.Empty:
                self._send(unsent)
                attempt = self._inbox.get()
            if attempt is None:
                self._send(unsent)
                return None
            if attempt != "signal" and attempt.claim():
                return attempt

    def _send(self, unsent: list[ToAgent]) -> None:
        self._invoker.sender.send(*unsent)
        unsent.clear()


class LoopRunner:
    """Slots that are tasks of the event loop that `aio` owns."""

    def __init__(self, invoker: Invoker, on_ended: OnEnded, concurrency: Concurrency) -> None:
        self._invoker = invoker
        self._on_ended = on_ended
        self._concurrency = concurrency
        self._is_read = channel_fd() is not None
        self._free = concurrency.slots
        self._resize_timer: asyncio.TimerHandle | None = None
        self._loop = invoker.aio.get_loop()
        self._inbox: deque[Attempt] = deque()
        self._wake_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: list[ToAgent] = []
        self._closing = asyncio.Event()

    def submit(self, attempt: Attempt) -> None:
        self._inbox.append(attempt)
        if not self._wake_scheduled:
            self._wake_scheduled = True
            self._loop.call_soon_threadsafe(self._start_jobs)

    def serve(self) -> None:
        self._invoker.aio.run(self._serve())

    def wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(int)

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._closing.set)

    async def _serve(self) -> None:
        try:
            await self._closing.wait()
        except asyncio.CancelledError:  # Ctrl-C, in the user's own process
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise
        self._start_jobs()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        self._flush()

    def _start_jobs(self) -> None:
        """Start submitted attempts in the free slots."""
        self._wake_scheduled = False  # before the inbox is read, so that an attempt that comes later schedules again
        self._resize()
        while self._free > 0 and self._inbox:
            attempt = self._inbox.popleft()
            if attempt.claim():
                self._free -= 1
                if self._concurrency.slots == 1 and self._is_read:
                    wait_output_read()
                self._send(self._invoker.start(attempt))
                task = self._loop.create_task(self._run(attempt))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        job_id.set(attempt.id)  # in the task's own context
        self._send(await self._invoker.run_on_loop(attempt))
        self._on_ended(attempt)
        self._free += 1
        self._start_jobs()

    def _resize(self) -> None:
        """Ask the user's function for the number of slots, now and every second while jobs run."""
        if self._concurrency.fixed:
            return
        before, slots = self._concurrency.slots, self._concurrency.adjust()
        if slots != before:
            self._free += slots - before
            self._send(SlotsChanged(slots))
        if self._resize_timer is None:
            self._resize_timer = self._loop.call_later(RESIZE_INTERVAL_S, self._on_resize_timer)

    def _on_resize_timer(self) -> None:
        self._resize_timer = None
        if self._tasks:
            self._start_jobs()

    def _send(self, message: ToAgent) -> None:
        """Send the message together with all others of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(message)

    def _flush(self) -> None:
        messages, self._unsent = self._unsent, []
        try:
            self._invoker.sender.send(*messages)
        except ChannelClosed:
            log.debug("executor.agent_gone")
            self._closing.set()


def wait_output_read(handle: int = 2) -> None:
    """Wait until the agent has read standard error, so that it does not take the last job's output for the next one's.

    Takes a microsecond where nothing is unread.
    """
    if fcntl is None:
        return
    import termios  # Windows lacks it too

    deadline = time.monotonic() + MAX_OUTPUT_WAIT_S
    unread = array("i", [0])
    try:
        while fcntl.ioctl(handle, termios.FIONREAD, unread) == 0 and unread[0] and time.monotonic() < deadline:
            time.sleep(0.0002)
    except OSError:  # no pipe
        return


Runner = ThreadRunner | LoopRunner


def runner_for(invoker: Invoker, on_ended: OnEnded, concurrency: Concurrency) -> Runner:
    """The runner that suits the handler's kind and the number of slots."""
    if invoker.handler.kind.on_loop:
        return LoopRunner(invoker, on_ended, concurrency)
    return ThreadRunner(invoker, on_ended, concurrency.slots)
