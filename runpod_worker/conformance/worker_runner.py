"""Runs the checks of a worker: starts its command as each group of checks needs it, and once more when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from .check import Check, Unmet, Verdict
from .scripted_service import Stage

START_S = 60.0
CHECK_S = 90.0
AT_ONCE = 3
"""Workers that run at once: more would measure the machine."""

HANDLERS = Path(__file__).parent / "handlers"
PLACES = {"{handler}": str(HANDLERS / "worker.py"), "{sdk_handler}": str(HANDLERS / "sdk.py")}
"""What stands for the shipped conformance handlers in a command."""


@dataclass
class WorkerSide:
    """A worker that runs, and the service that is played for it."""

    stage: Stage
    name: str
    process: asyncio.subprocess.Process
    spent: bool = False
    """The next check needs a new one."""

    @property
    def gone(self) -> bool:
        """Whether the command has ended."""
        return self.process.returncode is not None

    def terminate(self) -> None:
        """What a container gets: SIGTERM to its first process."""
        self.process.send_signal(signal.SIGTERM)

    async def left(self, patience_s: float) -> int:
        """The exit status, once the worker has ended."""
        try:
            return await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            raise Unmet(f"the worker is still there {patience_s:g} s after SIGTERM") from None

    async def end(self) -> None:
        """The container is gone, with everything in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await self.stage.close()


class WorkerRun:
    """Checks one command.

    Args:
        command: starts the worker: a program and its arguments.
        env: the environment it is started in, without what the platform adds.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._command = [_placed(word) for word in command]
        self._env = env
        self._started = 0

    async def verdicts(self, checks: Sequence[Check[WorkerSide]]) -> AsyncIterator[Verdict]:
        """The checks' verdicts, as they come. Each group has a worker and a service of its own; they run at once."""
        told: asyncio.Queue[Verdict] = asyncio.Queue()
        at_once = asyncio.Semaphore(AT_ONCE)
        names = list(dict.fromkeys(check.group for check in checks))
        async with asyncio.TaskGroup() as groups:
            for name in names:
                groups.create_task(self._group([one for one in checks if one.group == name], told, at_once))
            for _ in checks:
                yield await told.get()

    async def _group(
        self, checks: Sequence[Check[WorkerSide]], told: asyncio.Queue[Verdict], at_once: asyncio.Semaphore
    ) -> None:
        side: WorkerSide | None = None
        async with at_once:
            try:
                for check in checks:
                    verdict, side = await self._verdict(check, side)
                    if side is not None and (verdict.why or side.gone or side.spent):
                        await side.end()  # what it left behind must not harm the next check
                        side = None
                    told.put_nowait(verdict)
            finally:
                if side is not None:
                    await side.end()

    async def _verdict(self, check: Check[WorkerSide], side: WorkerSide | None) -> tuple[Verdict, WorkerSide | None]:
        begin, why = monotonic(), ""
        try:
            if side is None:
                side = await self._start(check.group)
            side.stage.fault = None
            begin = monotonic()
            await asyncio.wait_for(check.run(side), CHECK_S)
        except Unmet as unmet:
            why = str(unmet)
        except TimeoutError:
            why = f"did not end within {CHECK_S:g} s"
        except Exception as error:
            why = f"the check itself broke: {type(error).__name__}: {error}"
        return Verdict(name=check.name, clause=check.clause, why=why, seconds=monotonic() - begin), side

    async def _start(self, group: str) -> WorkerSide:
        stage = Stage()
        await stage.open()
        self._started += 1
        name = f"conformance-{self._started}"
        kind, *more = group.split()
        env = {
            **self._env,
            **stage.variables(name),
            "CONFORMANCE_KIND": kind,
            "CONFORMANCE_CONCURRENCY": "3" if "x3" in more else "1",
            "CONFORMANCE_AGGREGATE": "1" if "aggregate" in more else "",
        }
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(
                *self._command, env=env, stdout=log, stderr=log, start_new_session=True
            )
            side = WorkerSide(stage, name, process)
            try:
                await self._ready(side)
            except Unmet as unmet:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines()[-3:]
                await side.end()
                raise Unmet(f"{unmet}; its last words: {' | '.join(said)}") from None
        return side

    async def _ready(self, side: WorkerSide) -> None:
        asking = asyncio.ensure_future(side.stage.until(lambda: _asks(side.stage), "a first job-take", START_S))
        ending = asyncio.ensure_future(side.process.wait())
        try:
            await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Unmet(f"the worker ended with status {side.process.returncode} before it asked for a job")
            asking.result()
        finally:
            asking.cancel()
            ending.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)


def _asks(stage: Stage) -> bool:
    return any(one.what in ("take", "batch") for one in stage.heard)


def _placed(word: str) -> str:
    for place, path in PLACES.items():
        word = word.replace(place, path)
    return sys.executable if word == "{python}" else word
