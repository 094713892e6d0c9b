"""An agent in this process, with an executor whose jobs are tasks on the same loop."""

import asyncio
import inspect
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.config import worker_settings
from runpod_worker.core.dispatch.events import Drain
from runpod_worker.core.dispatch.messages import (
    Chunks,
    Done,
    File,
    Progress,
    Ready,
    Revoke,
    Run,
    Started,
    Stop,
    ToAgent,
    ToExecutor,
)
from runpod_worker.core.dispatch.values import Timings
from runpod_worker.worker.agent.agent import Agent
from runpod_worker.worker.agent.spool import Spool
from runpod_worker.worker.ipc import channel
from runpod_worker.worker.link.http import HttpLink
from runpod_worker.worker.link.transport import HttpTransport

TIMEOUT_S = 30.0

Handler = Callable[["Job"], Any]


@dataclass
class Job:
    """The argument of a handler in these tests."""

    key: str
    id: str
    input: Any
    send: Callable[[ToAgent], None]
    files: int = 0

    def progress(self, value: Any) -> None:
        self.send(Progress(self.key, json.dumps(value).encode()))

    def save(self, body: bytes, name: str) -> None:
        self.files += 1
        self.send(File(self.key, "token", name, "application/octet-stream", body))


class InMemoryExecutor:
    """Keeps the contract of `Process`; `exit` plays the death of the process."""

    can_restart = True
    exit_code: int | None = None

    def __init__(self, handler: Handler, slots: int) -> None:
        self._handler = handler
        self._slots = slots
        self._channel: channel.ExecutorChannel | None = None
        self._on_exit: Callable[[], None] = lambda: None
        self._free = asyncio.Semaphore(slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._started: set[str] = set()

    def start(self, on_exit: Callable[[], None]) -> socket.socket:
        ours, theirs = channel.pair()
        self._channel, self._on_exit = channel.ExecutorChannel(theirs), on_exit
        self._free, self._tasks, self._started = asyncio.Semaphore(self._slots), {}, set()
        threading.Thread(target=self._read, args=(self._channel, asyncio.get_running_loop()), daemon=True).start()
        self._send(Ready("coroutine", self._slots, 0.0, "cpu"))
        return ours

    def kill(self) -> None:
        self.exit()

    def exit(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._on_exit()

    async def exit_report(self, since: float) -> tuple[str, str]:
        return "was killed by SIGKILL", ""

    def _read(self, connection: channel.ExecutorChannel, loop: asyncio.AbstractEventLoop) -> None:
        for message in connection:
            loop.call_soon_threadsafe(self._receive, message)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self.exit)

    def _send(self, *messages: ToAgent) -> None:
        if self._channel is not None:
            self._channel.send(*messages)

    def _receive(self, message: ToExecutor) -> None:
        match message:
            case Run():
                self._tasks[message.key] = asyncio.create_task(self._run(message))
            case Stop() if message.key in self._tasks:
                self._tasks[message.key].cancel()
            case Revoke() if message.key in self._tasks and message.key not in self._started:
                self._tasks.pop(message.key).cancel()
                self._send(Done(key=message.key, revoked=True))

    async def _run(self, run: Run) -> None:
        ready_at = time.monotonic()
        received = json.loads(run.body)
        job = Job(run.key, received["id"], received["input"], self._send)
        try:
            async with self._free:
                self._started.add(run.key)
                started_at = time.monotonic()
                self._send(Started(run.key, started_at))
                output, is_stream = await self._call(job)
        except asyncio.CancelledError:
            if self._tasks.pop(run.key, None) is not None:
                self._send(Done(key=run.key, stopped=True))
            return
        ended_at = time.monotonic()
        timings = Timings(ready_at, started_at, ended_at, ended_at)
        del self._tasks[run.key]
        self._send(Done(output, key=run.key, is_stream=is_stream, files=job.files, timings=timings))

    async def _call(self, job: Job) -> tuple[bytes, bool]:
        result = self._handler(job)
        if not inspect.isasyncgen(result):
            return json.dumps(await result).encode(), False
        index = 0
        async for chunk in result:
            self._send(Chunks(job.key, index, [json.dumps(chunk).encode()]))
            index += 1
            await asyncio.sleep(0)  # the agent reads on this loop: without a pause the socket would fill
        return b"[]", True


class RunningAgent:
    """An agent and its executor."""

    def __init__(self, agent: Agent, executor: InMemoryExecutor, events: list[str]) -> None:
        self.executor = executor
        self.events = events
        """The names of its log events."""
        self._agent = agent
        self.task = asyncio.create_task(agent.run())

    async def terminate(self) -> int:
        """Drain as after SIGTERM; return the exit code."""
        self._agent.handle(Drain(0, "the test ends"))
        return await asyncio.wait_for(self.task, TIMEOUT_S)

    async def logged(self, event: str) -> None:
        """Wait until the agent has logged this event."""
        async with asyncio.timeout(TIMEOUT_S):
            while event not in self.events:
                await asyncio.sleep(0.01)


StartAgent = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
def log_events() -> Iterator[list[str]]:
    """The names of all log events."""
    events: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: events.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("runpod_worker")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield events
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
async def start_agent(service: Any, tmp_path: Path, log_events: list[str]) -> AsyncIterator[StartAgent]:
    """Start an agent for the fake service. `handler` is a coroutine function or an async generator function."""
    running: list[RunningAgent] = []

    async def start(
        handler: Handler, *, slots: int = 1, wall: Callable[[], float] = time.time, **given: Any
    ) -> RunningAgent:
        options = {"url": service.url, "worker_id": "w1", "api_key": "KEY1", "stop_grace_s": 0.5, **given}
        settings = worker_settings(options, env={})
        link = HttpLink(settings, HttpTransport())
        spool = Spool(tmp_path / "spool", endpoint=link.endpoint, max_bytes=1 << 30)
        executor = InMemoryExecutor(handler, slots)
        agent = Agent(settings, link, spool, [executor], started_at=time.monotonic(), wall=wall)
        running.append(RunningAgent(agent, executor, log_events))
        await asyncio.sleep(0)
        return running[-1]

    yield start
    for worker in running:
        worker.task.cancel()
        worker.executor.exit()
    await asyncio.gather(*(worker.task for worker in running), return_exceptions=True)
