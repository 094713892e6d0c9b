"""A job service that can be told to misbehave, and real workers that talk to it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import textwrap
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runpod_worker.core.protocol import EXTENSIONS

PATIENCE_S = 30.0
"""For what should come soon, on a machine that is busy with other things."""


@dataclass
class Request:
    """One request as it came."""

    route: str
    method: str
    path: str
    query: dict[str, str]
    raw: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def job(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass
class Script:
    """What one route does instead of its duty, one answer a request: a status, "cut", or a body."""

    answers: deque[Any] = field(default_factory=deque)
    delay_s: float = 0.0


class FakeService:
    """RunPod's worker protocol, and with `extensions` ours: no rules, only a record of what was said."""

    def __init__(self) -> None:
        self.extensions: frozenset[str] = frozenset()
        self.hold_s = 60.0
        self.requests: list[Request] = []
        self.stale: set[str] = set()
        self.forgets = 0
        """So many outcomes that ask for jobs are stale, and get their own job as the next one."""
        self.taken_at: dict[str, float] = {}
        self._jobs: deque[dict[str, Any]] = deque()
        self._stops: deque[list[str]] = deque()
        self._scripts: dict[str, Script] = {}
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.takes_back = False
        """Whether jobs of a returned hand-over go back to the queue, as docs/extensions.md has it."""
        self._handed_over: dict[str, list[dict[str, Any]]] = {}
        self._returned: set[str] = set()

    # ------------------------------------------------------------ told by the test

    async def add(self, *jobs: dict[str, Any]) -> None:
        """Put jobs into the queue."""
        self._jobs.extend(jobs)
        await self._notify()

    async def stop(self, *ids: str) -> None:
        """Name jobs in the answer to job-stop."""
        self._stops.append(list(ids))
        await self._notify()

    def script(self, route: str, *answers: Any) -> None:
        """The next requests to the route get these: a status, "cut" (the connection), bytes, or (status,
        bytes) with perhaps a dict of headers."""
        self._of(route).answers.extend(answers)

    def delay(self, route: str, seconds: float) -> None:
        """Every answer of the route takes so long."""
        self._of(route).delay_s = seconds

    async def up(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Refuse connections, and cut those that are."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/ep"

    # ------------------------------------------------------------ asked by the test

    def to(self, route: str) -> list[Request]:
        """The requests to a route, in order."""
        return [one for one in self.requests if one.route == route]

    def results(self) -> dict[str, Any]:
        """The last outcome of each job."""
        return {one.job: one.json for one in self.to("job-done") if one.json.get("status") != "IN_PROGRESS"}

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what was recorded fulfils the condition."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: bool(condition()))

    async def result(self, job_id: str) -> Any:
        """The outcome of a job, when it has come."""
        await self.until(lambda: job_id in self.results())
        return self.results()[job_id]

    async def requests_to(self, route: str, count: int = 1) -> list[Request]:
        """The requests to a route, when there are so many."""
        await self.until(lambda: len(self.to(route)) >= count)
        return self.to(route)

    def counted(self) -> Counter[str]:
        """How many requests each route got."""
        return Counter(one.route for one in self.requests)

    # ------------------------------------------------------------ the routes

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")
        route = parts[3] if len(parts) > 3 else request.path
        record = Request(
            route=route,
            method=request.method,
            path=request.path,
            query=dict(request.query),
            raw=request.raw_path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
            at=time.monotonic(),
        )
        self.requests.append(record)
        await self._notify()
        script = self._of(route)
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if script.answers:
            return self._scripted(script.answers.popleft(), request)
        answer = getattr(self, "_" + route.replace("-", "_"), None)
        response = await answer(request, record) if answer else web.Response(status=404, text="no such route")
        if self.extensions:
            response.headers["X-Worker-Extensions"] = " ".join(sorted(self.extensions))
            response.headers["X-Files-Url"] = f"{self.url}/files"
        return response

    def _scripted(self, answer: Any, request: web.Request) -> web.StreamResponse:
        if answer == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(answer, int):
            return web.Response(status=answer, text=f"scripted {answer}")
        status, body, *more = answer if isinstance(answer, tuple) else (200, answer)
        headers = more[0] if more else None
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    async def _job_take(self, request: web.Request, record: Request) -> web.Response:
        return await self._take(1, record)

    async def _job_take_batch(self, request: web.Request, record: Request) -> web.Response:
        return await self._take(int(request.query["batch_size"]), record)

    async def _take(self, most: int, record: Request) -> web.Response:
        token = record.headers.get("x-take-id", "")
        if not await self._wait_for(self._jobs) or (self.takes_back and token in self._returned):
            return web.Response(status=204)
        jobs = self._handed_over[token] = self._handed(most)
        return web.json_response(jobs if most > 1 else jobs[0])

    def _handed(self, most: int) -> list[dict[str, Any]]:
        jobs = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
        for job in jobs:
            if "id" in job:
                self.taken_at[job["id"]] = time.monotonic()
        return jobs

    async def _job_stop(self, request: web.Request, record: Request) -> web.Response:
        if not await self._wait_for(self._stops):
            return web.Response(status=204)
        return web.json_response({"jobsToStop": self._stops.popleft()})

    async def _wait_for(self, things: deque[Any]) -> bool:
        try:
            async with asyncio.timeout(self.hold_s), self._changed:
                await self._changed.wait_for(lambda: bool(things))
        except TimeoutError:
            return False
        return True

    async def _job_done(self, request: web.Request, record: Request) -> web.Response:
        if record.job in self.stale:
            return web.Response(headers={"X-Stale": "1"})
        most = int(record.headers.get("x-take", 0))
        if most and self.forgets:
            self.forgets -= 1
            job = {"id": record.job, "input": "again", "attempt": int(record.headers["x-attempt"]) + 1}
            return web.json_response([job], headers={"X-Stale": "1"})
        jobs = self._handed_over[record.headers.get("x-take-id", "")] = self._handed(most)
        return web.json_response(jobs) if most else web.Response()

    async def _job_stream(self, request: web.Request, record: Request) -> web.Response:
        return web.Response(headers={"X-Stale": "1"} if record.job in self.stale else {})

    async def _job_return(self, request: web.Request, record: Request) -> web.Response:
        returned = json.loads(record.body)["takes"] if self.takes_back else []
        self._returned.update(returned)
        back = [job for token in returned for job in self._handed_over.pop(token, [])]
        self._jobs.extendleft(reversed(back))
        await self._notify()
        return web.json_response({"returned": len(back)})

    async def _ping(self, request: web.Request, record: Request) -> web.Response:
        return web.Response(text="{}")

    async def _files(self, request: web.Request, record: Request) -> web.Response:
        return web.json_response({})

    def _of(self, route: str) -> Script:
        return self._scripts.setdefault(route, Script())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


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
        async with asyncio.timeout(PATIENCE_S):
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
