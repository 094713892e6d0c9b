"""Runs handlers for RunPod's SDK as processes, with a job service that records their requests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tools.differential.recording import Recorder, Seen

TIMEOUT_S = 45.0
"""Longer than the grace time of a stopped worker."""


class Started:
    """A handler's process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    async def ended(self) -> int:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self.process.wait()
        except TimeoutError:
            pytest.fail(f"the worker did not end:\n{self.output}")

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


Start = Callable[..., Awaitable[Started]]


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    made = Recorder()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a handler's code: `await start(code, *arguments, command=..., **env)`."""
    processes: list[asyncio.subprocess.Process] = []

    async def start_(code: str, *arguments: str, command: tuple[str, ...] = (), **env: str) -> Started:
        number = len(processes)
        handler, log = tmp_path / f"handler{number}.py", tmp_path / f"log{number}"
        handler.write_text(textwrap.dedent(code))
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *command, str(handler), *arguments),
                cwd=tmp_path,
                env={**os.environ, **env},
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        processes.append(process)
        return Started(process, log)

    yield start_
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.fixture
def work(recorder: Recorder, start: Start) -> Callable[..., Awaitable[tuple[Seen, Started]]]:
    """Run jobs with a handler until all are reported; return the requests and the worker, which still runs."""

    async def work_(
        code: str, *jobs: dict[str, Any], arguments: tuple[str, ...] = (), **options: Any
    ) -> tuple[Seen, Started]:
        seen = recorder.expect("ep", list(jobs))
        worker = await start(code, *arguments, **{**recorder.environment("ep"), **options})
        reported, ended = asyncio.ensure_future(seen.finished.wait()), asyncio.ensure_future(worker.process.wait())
        await asyncio.wait([reported, ended], timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        reported.cancel()
        ended.cancel()
        assert not seen.open, worker.output
        return seen, worker

    return work_
