"""Run every worker of handlers.py under one SDK, a few at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from runpod_worker.serverless.as_runpod import FOLDER as AS_RUNPOD

from .comparing import Lines, views
from .handlers import WORKERS, job_object
from .page import Comparison
from .recording import Answers, Recorder, Seen

HANDLERS = Path(__file__).with_name("handlers.py")
ROOT = HANDLERS.parents[2]
MAX_WORKERS = 8
TIMEOUT_S = 90.0
LATE_REPORTS_S = 3.0
"""How long to wait for late reports after a worker has ended, or has requested a job when none was left."""

FIRSTS = {"values": ("job-take", "job-stop", "ping"), "modifier": ("job-take-batch",)}
"""Routes that name no job. Only the first request of each is compared: the number of later ones depends on timing."""


async def run_reference(python: Path) -> dict[str, Lines]:
    """The SDK's lines, by case; `python` is an environment with the SDK."""
    return views(await run(python, ours=False))


async def run_ours() -> dict[str, Lines]:
    """This package's lines, by case."""
    return views(await run(Path(sys.executable), ours=True))


async def compare(python: Path) -> Comparison:
    """Run both at the same time: the SDK under `python`, this package under the current Python."""
    reference, ours = await asyncio.gather(run_reference(python), run_ours())
    return Comparison(reference=reference, ours=ours)


async def run(python: Path, *, ours: bool) -> Answers:
    """The requests of all workers under the SDK of this Python, or under this package with `ours`."""
    recorder = Recorder()
    await recorder.start()
    room = asyncio.Semaphore(MAX_WORKERS)
    answers: Answers = {}
    try:
        async with asyncio.TaskGroup() as tasks:
            names = sorted(WORKERS, key=lambda name: -len(WORKERS[name][1]))  # the longest first
            runs = {name: tasks.create_task(_worker(recorder, room, python, name, ours=ours)) for name in names}
        for name, task in runs.items():
            seen = task.result()
            answers |= {_key(name, job): requests for job, requests in seen.jobs.items()}
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
    """Wait until every job is reported, or the worker has ended or requests jobs that do not exist."""
    ended = asyncio.ensure_future(process.wait())
    finished = asyncio.ensure_future(seen.finished.wait())
    idle = asyncio.ensure_future(seen.idle.wait())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait([ended, finished, idle], return_when=asyncio.FIRST_COMPLETED)
        # Late reports: results of prefetched jobs, and progress that the reference sends after the result.
        late = [ended, idle] if finished.done() else [finished]
        await asyncio.wait(late, timeout=LATE_REPORTS_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in (ended, finished, idle):
            wait.cancel()
