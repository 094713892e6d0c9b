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
from typing import Protocol

from runpod_worker.core.errors import ChannelClosed
from runpod_worker.log import job_id, log
from runpod_worker.worker.executor.attempt import Running
from runpod_worker.worker.executor.concurrency import Concurrency
from runpod_worker.worker.executor.interrupt import MainThread, PoolThread
from runpod_worker.worker.executor.invoke import Calling
from runpod_worker.worker.executor.sender import Outflow
from runpod_worker.worker.ipc.messages import SlotsChanged, ToAgent

ADJUST_EVERY_S = 1.0
"""How often the number of slots is looked at while jobs run."""


class Runner(Protocol):
    """What the executor needs of a runner."""

    def submit(self, running: Running) -> None:
        """Run the attempt as soon as a slot is free. From any thread."""

    def serve(self) -> None:
        """Run what is submitted, until `close`. Called in the main thread."""

    def close(self) -> None:
        """Let `serve` return once what was submitted is done. From any thread."""


class MainThreadRunner:
    """One slot, in the thread that calls `serve`: the main thread, where signals can reach blocking calls."""

    def __init__(self, calling: Calling, outflow: Outflow, ended: Callable[[Running], None]) -> None:
        self._inbox: queue.SimpleQueue[Running | None] = queue.SimpleQueue()
        self._lane = _Lane(calling, outflow, ended, self._inbox)

    def submit(self, running: Running) -> None:
        self._inbox.put(running)

    def serve(self) -> None:
        guard = MainThread()
        try:
            self._lane.serve(guard)
        finally:
            guard.close()

    def close(self) -> None:
        self._inbox.put(None)


class PoolRunner:
    """Several slots, each a thread."""

    def __init__(self, calling: Calling, outflow: Outflow, ended: Callable[[Running], None], slots: int) -> None:
        self._inbox: queue.SimpleQueue[Running | None] = queue.SimpleQueue()
        self._lane = _Lane(calling, outflow, ended, self._inbox)
        self._slots = slots

    def submit(self, running: Running) -> None:
        self._inbox.put(running)

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
            self._lane.serve(PoolThread())
        except ChannelClosed:  # whoever reads the channel closes this runner
            return


class _Lane:
    """One job after the other."""

    def __init__(
        self,
        calling: Calling,
        outflow: Outflow,
        ended: Callable[[Running], None],
        inbox: queue.SimpleQueue[Running | None],
    ) -> None:
        self._calling = calling
        self._outflow = outflow
        self._ended = ended
        self._inbox = inbox

    def serve(self, guard: MainThread | PoolThread) -> None:
        """Run jobs until the inbox says None."""
        unsent: list[ToAgent] = []
        while (running := self._next(unsent)) is not None:
            unsent.append(self._calling.start(running))
            self._send(unsent)
            token = job_id.set(running.id)
            unsent.append(self._calling.run(running, guard))
            job_id.reset(token)
            self._ended(running)

    def _next(self, unsent: list[ToAgent]) -> Running | None:
        """The next job nobody else claimed. The last Done is sent first, unless that job is there already."""
        while True:
            try:
                running = self._inbox.get_nowait()
            except queue.Empty:
                self._send(unsent)
                running = self._inbox.get()
            if running is None:
                self._send(unsent)
                return None
            if running.claim():
                return running

    def _send(self, unsent: list[ToAgent]) -> None:
        self._outflow.send(*unsent)
        unsent.clear()


class LoopRunner:
    """Several slots, each a task of the event loop that `aio` owns."""

    def __init__(
        self,
        calling: Calling,
        outflow: Outflow,
        ended: Callable[[Running], None],
        concurrency: Concurrency,
        aio: asyncio.Runner,
    ) -> None:
        self._calling = calling
        self._outflow = outflow
        self._ended = ended
        self._concurrency = concurrency
        self._free = concurrency.slots
        self._looking: asyncio.TimerHandle | None = None
        self._aio = aio
        self._loop = aio.get_loop()
        self._inbox: deque[Running] = deque()
        self._pumping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._out: list[ToAgent] = []
        self._closing = asyncio.Event()

    def submit(self, running: Running) -> None:
        self._inbox.append(running)
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon_threadsafe(self._pump)

    def serve(self) -> None:
        self._aio.run(self._serve())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)

    async def _serve(self) -> None:
        await self._closing.wait()
        self._pump()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._looking is not None:
            self._looking.cancel()
        self._flush()

    def _pump(self) -> None:
        self._pumping = False  # before the inbox is looked at: what comes later pumps again
        self._adjust()
        while self._free > 0 and self._inbox:
            running = self._inbox.popleft()
            if running.claim():
                self._free -= 1
                self._send(self._calling.start(running))
                task = self._loop.create_task(self._run(running))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, running: Running) -> None:
        job_id.set(running.id)  # in the task's own context
        self._send(await self._calling.run_on_loop(running))
        self._ended(running)
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
        if self._looking is None:
            self._looking = self._loop.call_later(ADJUST_EVERY_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._tasks:
            self._pump()

    def _send(self, frame: ToAgent) -> None:
        """Send the frame with all others of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        frames, self._out = self._out, []
        try:
            self._outflow.send(*frames)
        except ChannelClosed:
            log.debug("executor.agent_gone")
            self._closing.set()


def runner_for(
    calling: Calling,
    outflow: Outflow,
    ended: Callable[[Running], None],
    concurrency: Concurrency,
    aio: asyncio.Runner,
) -> Runner:
    """The runner that suits the handler's kind and the number of slots."""
    if calling.handler.kind.on_loop:
        return LoopRunner(calling, outflow, ended, concurrency, aio)
    slots = concurrency.slots
    if slots == 1 and threading.current_thread() is threading.main_thread():
        return MainThreadRunner(calling, outflow, ended)
    return PoolRunner(calling, outflow, ended, slots)
