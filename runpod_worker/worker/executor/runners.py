"""Runs jobs: in the main thread, in several threads, or as tasks of one event loop.

A runner gets prepared attempts from another thread (`submit`), runs each that nobody else claimed, and sends Started
and exactly one Done for it. `serve` blocks until `close` was called and everything submitted before is done.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from runpod_worker.core.errors import ChannelClosed
from runpod_worker.log import job_id, log
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.concurrency import Concurrency
from runpod_worker.worker.executor.interrupt import MainThread, PoolThread
from runpod_worker.worker.executor.invoke import Invoker
from runpod_worker.worker.executor.sender import MessageSender
from runpod_worker.worker.ipc.messages import SlotsChanged, ToAgent

ADJUST_EVERY_S = 1.0
"""How often the number of slots is looked at while jobs run."""


class Runner(Protocol):
    """What the executor needs of a runner."""

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt as soon as a slot is free. From any thread."""

    def serve(self) -> None:
        """Run what is submitted, until `close`. Called in the main thread."""

    def close(self) -> None:
        """Let `serve` return once what was submitted is done. From any thread."""


class MainThreadRunner:
    """One slot, in the thread that calls `serve`: the main thread, where signals can reach blocking calls."""

    def __init__(self, invoker: Invoker, sender: MessageSender, ended: Callable[[Attempt], None]) -> None:
        self._inbox: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._slot_loop = SlotLoop(invoker, sender, ended, self._inbox)

    def submit(self, attempt: Attempt) -> None:
        self._inbox.put(attempt)

    def serve(self) -> None:
        guard = MainThread()
        try:
            self._slot_loop.serve(guard)
        finally:
            guard.close()

    def close(self) -> None:
        self._inbox.put(None)


class PoolRunner:
    """Several slots, each a thread."""

    def __init__(self, invoker: Invoker, sender: MessageSender, ended: Callable[[Attempt], None], slots: int) -> None:
        self._inbox: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._slot_loop = SlotLoop(invoker, sender, ended, self._inbox)
        self._slots = slots

    def submit(self, attempt: Attempt) -> None:
        self._inbox.put(attempt)

    def serve(self) -> None:
        threads = [
            threading.Thread(target=self._serve, name=f"runpod-worker-slot-{slot}", daemon=True)
            for slot in range(self._slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def close(self) -> None:
        for _ in range(self._slots):
            self._inbox.put(None)

    def _serve(self) -> None:
        try:
            self._slot_loop.serve(PoolThread())
        except ChannelClosed:  # whoever reads the channel closes this runner
            return


class SlotLoop:
    """One job after the other."""

    def __init__(
        self,
        invoker: Invoker,
        sender: MessageSender,
        ended: Callable[[Attempt], None],
        inbox: queue.SimpleQueue[Attempt | None],
    ) -> None:
        self._invoker = invoker
        self._sender = sender
        self._on_ended = ended
        self._inbox = inbox

    def serve(self, guard: MainThread | PoolThread) -> None:
        """Run jobs until the inbox says None."""
        unsent: list[ToAgent] = []
        while (attempt := self._next(unsent)) is not None:
            unsent.append(self._invoker.start(attempt))
            self._send(unsent)
            token = job_id.set(attempt.id)
            unsent.append(self._invoker.run(attempt, guard))
            job_id.reset(token)
            self._on_ended(attempt)

    def _next(self, unsent: list[ToAgent]) -> Attempt | None:
        """The next job nobody else claimed. The last Done is sent first, unless that job is there already."""
        while True:
            try:
                attempt = self._inbox.get_nowait()
            except queue.Empty:
                self._send(unsent)
                attempt = self._inbox.get()
            if attempt is None:
                self._send(unsent)
                return None
            if attempt.claim():
                return attempt

    def _send(self, unsent: list[ToAgent]) -> None:
        self._sender.send(*unsent)
        unsent.clear()


class LoopRunner:
    """Several slots, each a task of the event loop that `aio` owns."""

    def __init__(
        self,
        invoker: Invoker,
        sender: MessageSender,
        ended: Callable[[Attempt], None],
        concurrency: Concurrency,
        aio: asyncio.Runner,
    ) -> None:
        self._invoker = invoker
        self._sender = sender
        self._on_ended = ended
        self._concurrency = concurrency
        self._free = concurrency.slots
        self._resize_timer: asyncio.TimerHandle | None = None
        self._aio = aio
        self._loop = aio.get_loop()
        self._inbox: deque[Attempt] = deque()
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: list[ToAgent] = []
        self._closing = asyncio.Event()

    def submit(self, attempt: Attempt) -> None:
        self._inbox.append(attempt)
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon_threadsafe(self._pump)

    def serve(self) -> None:
        self._aio.run(self._serve())

    def close(self) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._closing.set)

    async def _serve(self) -> None:
        await self._closing.wait()
        self._pump()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        self._flush()

    def _pump(self) -> None:
        self._pumping = False  # before the inbox is looked at: what comes later pumps again
        self._adjust()
        while self._free > 0 and self._inbox:
            attempt = self._inbox.popleft()
            if attempt.claim():
                self._free -= 1
                self._send(self._invoker.start(attempt))
                task = self._loop.create_task(self._run(attempt))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        job_id.set(attempt.id)  # in the task's own context
        self._send(await self._invoker.run_on_loop(attempt))
        self._on_ended(attempt)
        self._free += 1
        self._pump()

    def _adjust(self) -> None:
        """Ask how many slots there are to be, now and again while jobs run."""
        if self._concurrency.fixed:
            return
        before, slots = self._concurrency.slots, self._concurrency.adjust()
        if slots != before:
            self._free += slots - before
            self._send(SlotsChanged(slots))
        if self._resize_timer is None:
            self._resize_timer = self._loop.call_later(ADJUST_EVERY_S, self._on_resize_timer)

    def _on_resize_timer(self) -> None:
        self._resize_timer = None
        if self._tasks:
            self._pump()

    def _send(self, message: ToAgent) -> None:
        """Send the message with all others of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def _flush(self) -> None:
        messages, self._out = self._out, []
        try:
            self._sender.send(*messages)
        except ChannelClosed:
            log.debug("executor.agent_gone")
            self._closing.set()


def runner_for(
    invoker: Invoker,
    sender: MessageSender,
    ended: Callable[[Attempt], None],
    concurrency: Concurrency,
    aio: asyncio.Runner,
) -> Runner:
    """The runner that suits the handler's kind and the number of slots."""
    if invoker.handler.kind.on_loop:
        return LoopRunner(invoker, sender, ended, concurrency, aio)
    slots = concurrency.slots
    if slots == 1 and threading.current_thread() is threading.main_thread():
        return MainThreadRunner(invoker, sender, ended)
    return PoolRunner(invoker, sender, ended, slots)
