"""A job service that misbehaves as scripted, and real workers that talk to it."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runpod_worker.conformance.scripted_service import ScriptedService, WorkerRequest
from runpod_worker.core.protocol import EXTENSIONS

TIMEOUT_S = 30.0
"""For what should happen soon, on a machine that is busy with other things."""


class FakeService(ScriptedService):
    """The scripted service with our extensions on top: negotiation, takes with an id, stale attempts, release."""

    timeout_s = TIMEOUT_S

    def __init__(self) -> None:
        super().__init__()
        self.poll_timeout_s = 60.0
        self.stale: set[str] = set()
        """Jobs whose reports are answered as stale."""
        self.reassign_count = 0
        """How many of the next results that ask for jobs are stale and get their own job again."""
        self.takes_back = False
        """Whether the jobs of a released take go back to the queue, as docs/extensions.md says."""
        self.taken_at: dict[str, float] = {}
        self._jobs_by_take: dict[str, list[dict[str, Any]]] = {}
        self._released: set[str] = set()
        self._extensions: frozenset[str] = frozenset()
        self.routes |= {
            "job-take": self._take_with_id,
            "job-take-batch": self._take_with_id,
            "job-done": self._done,
            "job-stream": self._stream,
            "job-return": self._release,
            "files": self._accept,
        }

    @property
    def extensions(self) -> frozenset[str]:
        """The extensions that every reply offers."""
        return self._extensions

    @extensions.setter
    def extensions(self, names: frozenset[str]) -> None:
        self._extensions = names
        self.headers = (
            {"X-Worker-Extensions": " ".join(sorted(names)), "X-Files-Url": f"{self.url}/files"} if names else {}
        )

    # ------------------------------------------------------------ directed by the test

    async def add(self, *jobs: dict[str, Any]) -> None:
        """Queue jobs."""
        self.enqueue(*jobs)

    async def stop(self, *ids: str) -> None:
        """Name jobs in the answer to job-stop."""
        self.request_stop(*ids)

    async def up(self) -> None:
        """Listen."""
        await self.open()

    async def down(self) -> None:
        """Refuse connections, and cut the open ones."""
        await self.close()

    # ------------------------------------------------------------ observed by the test

    def to(self, route: str) -> list[WorkerRequest]:
        """The requests to a route, in order."""
        return self.received(route)

    def results(self) -> dict[str, Any]:
        """The last outcome of each job."""
        return {report.job_id: report.json for report in self.to("job-done") if report.is_final}

    async def result(self, job_id: str) -> Any:
        """The outcome of a job, when it has arrived."""
        await self.until(lambda: job_id in self.results(), f"the result of {job_id}")
        return self.results()[job_id]

    async def requests_to(self, route: str, count: int = 1) -> list[WorkerRequest]:
        """The requests to a route, once there are `count`."""
        await self.until(lambda: len(self.to(route)) >= count, f"{count} requests to {route}")
        return self.to(route)

    def counted(self) -> Counter[str]:
        """How many requests each route got."""
        return Counter(request.route for request in self.requests)

    # ------------------------------------------------------------ the routes

    async def _take_with_id(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        take_id = record.headers.get("x-take-id", "")
        if not await self.hold(self.jobs, request) or (self.takes_back and take_id in self._released):
            return web.Response(status=204)
        max_jobs = int(record.query.get("batch_size", "1"))
        jobs = self._jobs_by_take[take_id] = self.pop_jobs(max_jobs)
        return web.json_response(jobs if max_jobs > 1 else jobs[0])

    def pop_jobs(self, max_jobs: int) -> list[Any]:
        jobs = super().pop_jobs(max_jobs)
        self.taken_at.update((job["id"], time.monotonic()) for job in jobs if "id" in job)
        return jobs

    async def _done(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        if record.job_id in self.stale:
            return web.Response(headers={"X-Stale": "1"})
        max_jobs = int(record.headers.get("x-take", 0))
        if max_jobs and self.reassign_count:
            self.reassign_count -= 1
            job = {"id": record.job_id, "input": "again", "attempt": int(record.headers["x-attempt"]) + 1}
            return web.json_response([job], headers={"X-Stale": "1"})
        jobs = self._jobs_by_take[record.headers.get("x-take-id", "")] = self.pop_jobs(max_jobs)
        return web.json_response(jobs) if max_jobs else web.Response()

    async def _stream(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        return web.Response(headers={"X-Stale": "1"} if record.job_id in self.stale else {})

    async def _release(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        take_ids = record.json["takes"] if self.takes_back else []
        self._released.update(take_ids)
        jobs = [job for take_id in take_ids for job in self._jobs_by_take.pop(take_id, [])]
        self.jobs.extendleft(reversed(jobs))
        self.wake()
        return web.json_response({"returned": len(jobs)})


@pytest.fixture
async def service() -> AsyncIterator[FakeService]:
    """A fake service that speaks RunPod's protocol and nothing more."""
    fake = FakeService()
    await fake.up()
    yield fake
    await fake.down()


@pytest.fixture
def agreed(service: FakeService) -> FakeService:
    """The same, with all our extensions."""
    service.extensions = EXTENSIONS
    return service


class RunningWorker:
    """A real worker process (and its executor)."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote to standard output and error."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def exit(self) -> int:
        """Its exit code, when it has ended."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._process.wait()

    async def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.exit()

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


PRELUDE = """
import asyncio, os, signal, sys, time
from runpod_worker.worker.worker import Worker
worker = Worker()
"""

StartWorker = Callable[..., Any]


@pytest.fixture
async def start_worker(service: FakeService, tmp_path: Path) -> AsyncIterator[StartWorker]:
    """Start a worker with this handler source: by `run_handler`, or with `as_executor=True` by `python handler.py`."""
    running: list[RunningWorker] = []

    async def start(source: str, *, as_executor: bool = False, **env: str) -> RunningWorker:
        number = len(running)
        handler = tmp_path / f"handler{number}.py"
        handler.write_text(PRELUDE + textwrap.dedent(source) + "\nworker.start()\n")
        log = tmp_path / f"worker{number}.log"
        command = [str(handler)] if as_executor else ["-m", "runpod_worker", "run", str(handler)]
        settings = {
            "RUNPOD_WORKER_URL": service.url,
            "RUNPOD_POD_ID": "w1",
            "RUNPOD_AI_API_KEY": "KEY1",
            "RUNPOD_WORKER_SPOOL": str(tmp_path / "spool"),
            "RUNPOD_WORKER_STOP_GRACE": "0.5",
        }
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, env={**os.environ, **settings, **env}, stdout=out, stderr=out
            )
        running.append(RunningWorker(process, log))
        return running[-1]

    yield start
    for worker in running:
        await worker.kill()
