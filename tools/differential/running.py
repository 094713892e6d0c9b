"""Run every worker of handlers.py under one SDK, a few at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from runpod_worker.serverless.as_runpod import FOLDER as AS_RUNPOD

from .comparing import views
from .handlers import WORKERS, job_object
from .page import Comparison
from .recording import Answers, Recorder, Seen

HANDLERS = Path(__file__).with_name("handlers.py")
ROOT = HANDLERS.parents[2]
REFERENCE = "runpod==1.12.0"
REFERENCE_VENV = ROOT / ".venv-reference"
LOCK = ROOT / ".venv-compat" / "..venv-reference.lock"
"""Whoever makes that environment holds it."""

AT_ONCE = 8
PATIENCE_S = 90.0
LAST_WORDS_S = 3.0
"""After a worker that did not report all of its jobs has asked for more, or has ended."""

FIRSTS = {"values": ("job-take", "job-stop", "ping"), "modifier": ("job-take-batch",)}
"""Requests that are about no job: the first of each is compared. When others follow is a matter of time."""


def reference_python() -> Path:
    """The Python of an environment with the reference SDK, which is made when it is missing."""
    python = REFERENCE_VENV / "bin/python"
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(REFERENCE_VENV)], check=True)
        if subprocess.run([str(python), "-c", "import runpod"], capture_output=True, check=False).returncode:
            subprocess.run([str(python), "-m", "pip", "install", "-q", REFERENCE], check=True)
    return python


async def compare(reference: Path) -> Comparison:
    """What both said: the SDK under the Python `reference`, and this package under ours. Both run at once."""
    theirs, ours = await asyncio.gather(run(reference, ours=False), run(Path(sys.executable), ours=True))
    return Comparison(reference=views(theirs), ours=views(ours))


async def run(python: Path, *, ours: bool) -> Answers:
    """What the workers said under the SDK of this Python (`ours`: under this package)."""
    recorder = Recorder()
    await recorder.start()
    room = asyncio.Semaphore(AT_ONCE)
    answers: Answers = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            names = sorted(WORKERS, key=lambda name: -len(WORKERS[name][1]))  # the longest first
            runs = {name: tasks.create_task(_worker(recorder, room, python, name, ours=ours)) for name in names}
        for name, task in runs.items():
            seen = task.result()
            answers |= {_key(name, job): said for job, said in seen.jobs.items()}
            answers |= {f"{name}: {route}": [seen.first[route]] for route in FIRSTS.get(name, ())}
    finally:
        await recorder.close()
    return answers


def _key(worker: str, job: str) -> str:
    return f"{worker}: {job}" if worker == "modifier" else job


async def _worker(recorder: Recorder, room: asyncio.Semaphore, python: Path, name: str, *, ours: bool) -> Seen:
    async with room:
        seen = recorder.expect(name, [job_object(job) for job in WORKERS[name][1]])
        with tempfile.TemporaryDirectory() as folder:
            env = {key: value for key, value in os.environ.items() if not key.startswith("RUNPOD_")}
            env |= recorder.environment(name) | {"HOME": folder, "RUNPOD_WORKER_SPOOL": f"{folder}/spool"}
            if ours:
                env["PYTHONPATH"] = os.pathsep.join([str(AS_RUNPOD), str(ROOT)])
            log = Path(folder, "log")
            with log.open("wb") as out:
                process = await asyncio.create_subprocess_exec(
                    str(python),
                    str(HANDLERS),
                    name,
                    env=env,
                    cwd=folder,
                    start_new_session=True,
                    stdout=out,
                    stderr=out,
                )
            try:
                await _until_finished(seen, process)
            except TimeoutError as error:
                raise RuntimeError(f"{name} under {python} did not finish:\n{log.read_text()[-3000:]}") from error
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    return seen


async def _until_finished(seen: Seen, process: asyncio.subprocess.Process) -> None:
    """Until every job was reported, or will never be: the worker has ended, or asked for more than there is."""
    ended = asyncio.ensure_future(process.wait())
    finished = asyncio.ensure_future(seen.finished.wait())
    idle = asyncio.ensure_future(seen.idle.wait())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([ended, finished, idle], return_when=asyncio.FIRST_COMPLETED)
        # What is still on its way: results of jobs taken ahead, progress that the reference sends after the result.
        rest = [ended, idle] if finished.done() else [finished]
        await asyncio.wait(rest, timeout=LAST_WORDS_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in (ended, finished, idle):
            wait.cancel()
