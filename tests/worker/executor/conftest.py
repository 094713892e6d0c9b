"""Executors for tests: a `JobLoop` in the test's own process, and a real process where only that can show it."""

import asyncio
import json
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runpod_worker.config import worker_settings
from runpod_worker.core.dispatch.messages import Done, Ready, Run, ToAgent, ToExecutor
from runpod_worker.worker.executor.job_loop import JobLoop
from runpod_worker.worker.ipc import channel

WAIT_S = 30.0

HEAD = """
import asyncio, msgspec, os, sys, threading, time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict
from runpod_worker import File, InputError, Job, JobStopped, Worker
worker = Worker()
"""


def run_message(key: str, value: Any, **more: Any) -> Run:
    body = msgspec.json.encode({"id": f"job-{key}", "input": {} if value is None else value})
    return Run(key=key, body=body, taken_at=time.monotonic(), **more)


# ------------------------------------------------------------------ in this process


class MainThread:
    """The main thread serves job loops, because signals reach only that one; the test runs in another thread."""

    def __init__(self) -> None:
        self.executors: list[Executor] = []
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def serve_beside(self, test: Callable[[], None]) -> None:
        errors: list[BaseException] = []
        thread = threading.Thread(target=self._run, args=(test, errors), name="test")
        thread.start()
        while (work := self._work.get()) is not None:
            work()
        thread.join()
        if errors:
            raise errors[0]

    def _run(self, test: Callable[[], None], errors: list[BaseException]) -> None:
        try:
            test()
        except BaseException as error:
            errors.append(error)
        try:
            for executor in self.executors:
                executor.close()
        finally:
            self._work.put(None)


class Executor:
    """A job loop with the worker that the code declares. The test stands for its agent."""

    def __init__(self, code: str, main_thread: MainThread, folder: Path) -> None:
        self.names: dict[str, Any] = {"__name__": "handler"}
        exec(compile(HEAD + textwrap.dedent(code), str(folder / "handler.py"), "exec"), self.names)
        self.seen: list[ToAgent] = []
        self.error: BaseException | None = None
        self._messages: queue.SimpleQueue[ToAgent | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        declaration = self.names["worker"].declaration()
        self._job_loop = JobLoop(declaration, worker_settings(), self._put)
        main_thread.submit(self._serve)

    def _put(self, *messages: ToAgent) -> None:
        for message in messages:
            self._messages.put(message)

    def _serve(self) -> None:
        try:
            self._messages.put(self._job_loop.load())
            self._job_loop.serve()
        except BaseException as error:
            self.error = error
        self._job_loop.shutdown()
        self._messages.put(None)
        self._ended.set()

    def send(self, *messages: ToExecutor) -> None:
        for message in messages:
            self._job_loop.handle(message)

    def run(self, key: str = "a", value: Any = None, **more: Any) -> None:
        self.send(run_message(key, value, **more))

    def next(self) -> ToAgent | None:
        message = self._messages.get(timeout=WAIT_S)
        if message is not None:
            self.seen.append(message)
        return message

    def until(self, kind: type, key: str | None = None) -> Any:
        while (message := self.next()) is not None:
            if isinstance(message, kind) and key in (None, getattr(message, "key", None)):
                return message
        raise AssertionError(f"the executor has ended; it sent {self.seen}") from self.error

    def ready(self) -> Ready:
        ready: Ready = self.until(Ready)
        return ready

    def done(self, key: str = "a", value: Any = None, **more: Any) -> Done:
        self.run(key, value, **more)
        done: Done = self.until(Done, key)
        return done

    def output(self, key: str = "a", value: Any = None, **more: Any) -> Any:
        done = self.done(key, value, **more)
        assert done.error is None, done.error
        return json.loads(done.output)

    def load_error(self) -> BaseException:
        assert self._ended.wait(WAIT_S)
        assert self.error is not None
        return self.error

    def close(self) -> None:
        self._job_loop.close("the agent is gone")

    def exit(self) -> None:
        """End as if the agent were gone; what is sent until then is in `seen`."""
        self.close()
        while self.next() is not None:
            pass


Start = Callable[..., Executor]


@pytest.fixture
def main_thread() -> MainThread:
    return MainThread()


@pytest.fixture
def start(main_thread: MainThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start an executor in this process, in the folder `tmp_path`. The test runs beside the main thread."""
    monkeypatch.chdir(tmp_path)

    def start(code: str, **env: str) -> Executor:
        for name, value in {"RUNPOD_POD_ID": "worker-1", **env}.items():
            monkeypatch.setenv(name, value)
        executor = Executor(code, main_thread, tmp_path)
        main_thread.executors.append(executor)
        return executor

    return start


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a test that uses `start` beside the main thread."""
    if "main_thread" not in pyfuncitem.funcargs:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    main_thread: Any = pyfuncitem.funcargs["main_thread"]
    main_thread.serve_beside(lambda: pyfuncitem.obj(**arguments))
    return True


# ------------------------------------------------------------------ in a process of its own


class ExecutorProcess:
    """A running handler file; what it sends can be awaited."""

    def __init__(self, folder: Path, code: str, **env: str) -> None:
        file = folder / "handler.py"
        file.write_text(HEAD + textwrap.dedent(code) + "\nworker.start()\n")
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        ours, theirs = channel.pair()
        defaults = {"RUNPOD_POD_ID": "worker-1", "RUNPOD_WORKER_STOP_GRACE": "2", "TMPDIR": str(self.temporary)}
        fd = {"RUNPOD_WORKER_CHANNEL_FD": str(theirs.fileno())}
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            pass_fds=[theirs.fileno()],
            env={"PATH": os.environ["PATH"], **defaults, **fd, **env},
            cwd=folder,
        )
        theirs.close()
        self.seen: list[ToAgent] = []
        self._messages: asyncio.Queue[ToAgent | None] = asyncio.Queue()
        self.channel = channel.AgentChannel(
            ours, on_message=self._messages.put_nowait, on_closed=lambda error: self._messages.put_nowait(None)
        )

    async def next(self) -> ToAgent | None:
        message = await asyncio.wait_for(self._messages.get(), WAIT_S)
        if message is not None:
            self.seen.append(message)
        return message

    async def until(self, kind: type, key: str | None = None) -> Any:
        async with asyncio.timeout(WAIT_S):
            while (message := await self.next()) is not None:
                if isinstance(message, kind) and key in (None, getattr(message, "key", None)):
                    return message
        raise AssertionError(f"the executor is gone; it sent {self.seen}")

    async def ready(self) -> Ready:
        ready: Ready = await self.until(Ready)
        return ready

    def run(self, key: str = "a", value: Any = None, **more: Any) -> None:
        self.channel.send(run_message(key, value, **more))

    async def output(self, key: str = "a", value: Any = None) -> Any:
        self.run(key, value)
        done = await self.until(Done, key)
        assert done.error is None, done.error
        return json.loads(done.output)

    async def exit(self) -> int:
        self.channel.close()
        return await asyncio.to_thread(self.child.wait, WAIT_S)


StartProcess = Callable[..., ExecutorProcess]


@pytest.fixture
async def start_process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Start an executor as a real process, spoken to over its channel."""
    started: list[ExecutorProcess] = []

    def start(code: str, **env: str) -> ExecutorProcess:
        started.append(ExecutorProcess(tmp_path, code, **env))
        return started[-1]

    yield start
    for executor in started:
        executor.channel.close()
        executor.child.kill()
        await asyncio.to_thread(executor.child.wait, WAIT_S)
