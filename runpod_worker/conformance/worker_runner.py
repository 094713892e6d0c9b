"""Runs the checks of a worker: starts its command for each group of checks, and again after it has exited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from .check import Check, CheckResult, RequirementFailed
from .scripted_service import ScriptedService

START_TIMEOUT_S = 60.0
CHECK_TIMEOUT_S = 90.0
MAX_WORKERS = 6
"""Workers that run at the same time; further groups wait. With more, the checks would measure the machine."""

HANDLERS = Path(__file__).parent / "handlers"
PLACEHOLDERS = {"{handler}": "worker.py", "{sdk_handler}": "sdk.py"}
"""Words of a command that stand for the path of a shipped conformance handler."""


@dataclass
class WorkerUnderTest:
    """A running worker and the service that it talks to."""

    service: ScriptedService
    name: str
    process: asyncio.subprocess.Process
    is_spent: bool = False
    """A check sets it when the next check needs a new worker."""

    @property
    def has_exited(self) -> bool:
        """Whether the command has ended."""
        return self.process.returncode is not None

    def terminate(self) -> None:
        """Send SIGTERM to the first process, as a container runtime does."""
        self.process.send_signal(signal.SIGTERM)

    async def exit_status(self, timeout_s: float) -> int:
        """Wait for the worker to exit and return its status."""
        try:
            return await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            raise RequirementFailed(f"the worker still runs {timeout_s:g} s after SIGTERM") from None

    async def close(self) -> None:
        """Kill the worker's whole session, as a container's end does, and close the service."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await self.service.close()


class WorkerRunner:
    """Checks one command.

    Args:
        command: starts the worker: a program and its arguments.
        env: the environment to start it in, without the platform's variables.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._words = command
        self._command: list[str] = []
        self._env = env
        self._started = 0

    async def run(self, checks: Sequence[Check[WorkerUnderTest]]) -> AsyncIterator[CheckResult]:
        """Run the checks and yield each result at once. Each group has its own worker and service; groups overlap."""
        results: asyncio.Queue[CheckResult] = asyncio.Queue()
        limit = asyncio.Semaphore(MAX_WORKERS)
        names = list(dict.fromkeys(check.group for check in checks))
        # Our executor never interrupts code inside its own package, so the handlers must be outside it.
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            shutil.copytree(HANDLERS, folder, dirs_exist_ok=True)
            self._command = [_expand(word, Path(folder)) for word in self._words]
            async with asyncio.TaskGroup() as groups:
                for name in names:
                    group = [check for check in checks if check.group == name]
                    groups.create_task(self._run_group(group, results, limit))
                for _ in checks:
                    yield await results.get()

    async def _run_group(
        self,
        checks: Sequence[Check[WorkerUnderTest]],
        results: asyncio.Queue[CheckResult],
        limit: asyncio.Semaphore,
    ) -> None:
        worker: WorkerUnderTest | None = None
        async with limit:
            try:
                for check in checks:
                    result, worker = await self._run_check(check, worker)
                    if worker is not None and (result.failure or worker.has_exited or worker.is_spent):
                        await worker.close()  # a failed check's leftovers must not disturb the next check
                        worker = None
                    results.put_nowait(result)
            finally:
                if worker is not None:
                    await worker.close()

    async def _run_check(
        self, check: Check[WorkerUnderTest], worker: WorkerUnderTest | None
    ) -> tuple[CheckResult, WorkerUnderTest | None]:
        begin, failure = monotonic(), ""
        try:
            if worker is None:
                worker = await self._start(check.group)
            worker.service.recover()
            begin = monotonic()
            await asyncio.wait_for(check.run(worker), CHECK_TIMEOUT_S)
        except RequirementFailed as exc:
            failure = str(exc)
        except TimeoutError:
            failure = f"did not end within {CHECK_TIMEOUT_S:g} s"
        except Exception as exc:
            failure = f"the check itself raised {type(exc).__name__}: {exc}"
        return CheckResult(check.name, check.clause, failure, monotonic() - begin), worker

    async def _start(self, group: str) -> WorkerUnderTest:
        service = ScriptedService()
        await service.open()
        self._started += 1
        name = f"conformance-{self._started}"
        kind, *settings = group.split()
        env = {
            **self._env,
            **service.environment(name),
            "CONFORMANCE_KIND": kind,
            "CONFORMANCE_CONCURRENCY": "3" if "x3" in settings else "1",
            "CONFORMANCE_AGGREGATE": "1" if "aggregate" in settings else "",
        }
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *self._command, env=env, stdout=log, stderr=log, start_new_session=True
            )
            worker = WorkerUnderTest(service, name, process)
            try:
                await _until_ready(worker)
            except RequirementFailed as exc:
                log.seek(0)
                last_lines = log.read().decode(errors="replace").strip().splitlines()[-3:]
                await worker.close()
                raise RequirementFailed(f"{exc}; its last lines: {' | '.join(last_lines)}") from None
        return worker


async def _until_ready(worker: WorkerUnderTest) -> None:
    take = asyncio.ensure_future(worker.service.until_take(START_TIMEOUT_S))
    exit_ = asyncio.ensure_future(worker.process.wait())
    try:
        await asyncio.wait((take, exit_), return_when=asyncio.FIRST_COMPLETED)
        if not take.done():
            status = worker.process.returncode
            raise RequirementFailed(f"the worker exited with status {status} before it asked for a job")
        take.result()
    finally:
        take.cancel()
        exit_.cancel()
        await asyncio.gather(take, exit_, return_exceptions=True)


def _expand(word: str, folder: Path) -> str:
    for placeholder, name in PLACEHOLDERS.items():
        word = word.replace(placeholder, str(folder / name))
    return sys.executable if word == "{python}" else word
