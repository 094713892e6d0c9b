"""The workers that a scenario runs: ours, that of another checkout, the reference SDK, and the floors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fake_service import FakeService

HERE = Path(__file__).parent
REFERENCE = "runpod==1.12.0"
REFERENCE_VENV = HERE.parent / ".venv-reference"
START_TIMEOUT_S = 60.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Checkout:
    """A checkout of this repository. Its own environment runs it, or else this interpreter."""

    name: str
    root: Path
    interpreter: str | None = None
    """Run it with this interpreter instead."""

    @property
    def python(self) -> str:
        """The interpreter to run it with."""
        own = self.root / ".venv/bin/python"
        return self.interpreter or (str(own) if own.exists() else sys.executable)

    @property
    def env(self) -> dict[str, str]:
        """Variables that make `import runpod_worker` find this checkout."""
        return {"PYTHONPATH": str(self.root)}

    def worker(self) -> Contender:
        """Its worker, on this checkout's handlers, so that every side runs the same scenario."""
        return Contender(self.name, (self.python, str(HERE / "handlers.py"), "ours"), self.env)


@dataclass(frozen=True)
class Contender:
    """One worker. The handler's name and the concurrency complete `argv`."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def is_reference(self) -> bool:
        """Whether it is the reference SDK, which needs a second for a job; scenarios give it fewer."""
        return self.name == "runpod"

    @property
    def is_floor(self) -> bool:
        """Whether it is a floor, which does not know our extensions."""
        return self.name.startswith("floor")


OURS = Checkout("ours", HERE.parent).worker()
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
    started_at: float

    def cpu_s(self) -> float:
        """Seconds of processor time that the worker's processes have used so far."""
        return sum(stat.cpu_s for stat in session_stats(self.process.pid))

    def resident_bytes(self) -> int:
        """Resident memory of the worker's processes."""
        return sum(stat.resident_bytes for stat in session_stats(self.process.pid))

    async def stop(self, timeout_s: float = 10.0) -> float:
        """Send SIGTERM, after the timeout SIGKILL to the whole group; return how long the exit took in seconds."""
        begin = time.monotonic()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), timeout_s)
        duration_s = time.monotonic() - begin
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        return duration_s


@dataclass(frozen=True)
class ProcessStat:
    """What /proc reports of one process."""

    session: int
    cpu_s: float
    resident_bytes: int


def process_stat(folder: Path) -> ProcessStat | None:
    """Read /proc/PID/stat; None if the process has just exited."""
    try:
        fields = (folder / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    cpu_s = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return ProcessStat(int(fields[3]), cpu_s, int(fields[21]) * PAGE_BYTES)


def session_stats(session: int) -> Iterator[ProcessStat]:
    """The processes of a session: a worker's agent, its executor and their children."""
    stats = (process_stat(folder) for folder in Path("/proc").glob("[0-9]*"))
    return (stat for stat in stats if stat is not None and stat.session == session)


@asynccontextmanager
async def running(
    contender: Contender, service: FakeService, handler: str, concurrency: int = 1, *, wait: bool = True
) -> AsyncIterator[Running]:
    """Start the worker, wait for its first take, and end it on exit."""
    started_at = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *contender.argv,
        handler,
        str(concurrency),
        env=os.environ | service.environment() | contender.env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        cwd=HERE,
    )
    worker = Running(process, started_at)
    try:
        if wait:
            await _until_first_take(service, process)
        yield worker
    finally:
        await worker.stop(timeout_s=0.5)


async def _until_first_take(service: FakeService, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while service.seen.first_take is None:
        if process.returncode is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start (exit status {process.returncode})")
        await asyncio.sleep(0.005)
