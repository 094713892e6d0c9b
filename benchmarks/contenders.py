"""The workers that are compared: ours, the reference SDK in an environment of its own, and the floors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fake_service import FakeService

HERE = Path(__file__).parent
REFERENCE = "runpod==1.12.0"
REFERENCE_VENV = HERE.parent / ".venv-reference"
START_S = 60.0


@dataclass(frozen=True)
class Contender:
    """One worker: `argv` is completed by the handler's name and the concurrency."""

    name: str
    argv: tuple[str, ...]


OURS = Contender("ours", (sys.executable, str(HERE / "handlers.py"), "ours"))
RUNPOD = Contender("runpod", (str(REFERENCE_VENV / "bin/python"), str(HERE / "handlers.py"), "runpod"))
SEQUENTIAL = Contender("floor, sequential", (sys.executable, str(HERE / "floor.py"), "sequential"))
PIPELINED = Contender("floor, pipelined", (sys.executable, str(HERE / "floor.py"), "pipelined"))


def install_reference() -> None:
    """Make the reference SDK's environment, once."""
    python = REFERENCE_VENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(REFERENCE_VENV)], check=True)
    if subprocess.run([str(python), "-c", "import runpod"], capture_output=True, check=False).returncode:
        print(f"installing {REFERENCE} into {REFERENCE_VENV.name}")
        subprocess.run([str(python), "-m", "pip", "install", "-q", REFERENCE], check=True)


@dataclass
class Running:
    """A worker process that takes jobs."""

    process: asyncio.subprocess.Process
    spawned: float

    def cpu_s(self) -> float:
        """Seconds of a processor that the worker's processes have used so far."""
        return sum(_cpu_s(folder) for folder in Path("/proc").glob("[0-9]*") if _session(folder) == self.process.pid)

    async def stop(self, within: float = 10.0) -> float:
        """SIGTERM, then SIGKILL for the whole group after `within` seconds; returns how long the end took."""
        begin = time.monotonic()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), within)
        took = time.monotonic() - begin
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        return took


def _fields(process: Path) -> list[str]:
    """What /proc says about the process, from its state on; nothing when it has just ended."""
    with suppress(OSError):
        return (process / "stat").read_text().rpartition(") ")[2].split()
    return []


def _session(process: Path) -> int:
    fields = _fields(process)
    return int(fields[3]) if fields else 0


def _cpu_s(process: Path) -> float:
    fields = _fields(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


@asynccontextmanager
async def running(
    contender: Contender, service: FakeService, handler: str, concurrency: int = 1, *, wait: bool = True
) -> AsyncIterator[Running]:
    """Start the worker, wait until its first take is in, and end it on the way out."""
    spawned = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *contender.argv,
        handler,
        str(concurrency),
        env=os.environ | service.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        cwd=HERE,
    )
    worker = Running(process, spawned)
    try:
        if wait:
            await _until_first_take(service, process)
        yield worker
    finally:
        await worker.stop(within=0.5)


async def _until_first_take(service: FakeService, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_S
    while service.seen.first_take is None:
        if process.returncode is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start (exit status {process.returncode})")
        await asyncio.sleep(0.005)
