"""A job service that a worker is checked against: it says what it is told to, and remembers everything it hears.

It speaks RunPod's protocol and none of our extensions. A result counts as heard when it was answered 200.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from aiohttp import web

from .check import Unmet, need, short

HOLD_S = 30.0
"""How long job-take and job-stop stay open: a worker that has to leave is in the middle of both."""

PATIENCE_S = 20.0

Fault = Callable[[str], int | None]
"""Given what a request is for, the status to answer instead of the right one; 0 cuts the connection."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A request of the worker. `what` is take, batch, done, stream, stop or ping."""

    what: str
    worker: str
    job_id: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float
    status: int

    @property
    def json(self) -> Any:
        """The body, as strict JSON."""
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except ValueError as exc:
            raise Unmet(f"job-{self.what}: the body is not JSON ({exc}): {short(self.body)}") from exc

    @property
    def final(self) -> bool:
        """Whether it ends its job."""
        return self.what == "done" and b'"IN_PROGRESS"' not in self.body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


@dataclass
class Stage:
    """The played service: jobs go in by `add`, what comes of them is in `heard`."""

    heard: list[Heard] = field(default_factory=list)
    fault: Fault | None = None
    port: int = 0
    _queue: deque[bytes] = field(default_factory=deque)
    _stops: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.ServerRunner | None = None
    _made: int = 0
    _closed: bool = False

    async def open(self) -> None:
        """Listen on a free port of this machine."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self._wake()
        if self._runner is not None:
            await self._runner.cleanup()

    def variables(self, worker: str) -> dict[str, str]:
        """The environment that the platform gives a worker."""
        base = f"http://127.0.0.1:{self.port}/v2/ep"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/{worker}?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=NVIDIA+A40",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": worker,
            "RUNPOD_ENDPOINT_ID": "ep",
            "RUNPOD_AI_API_KEY": "conformance-key",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        }

    # ------------------------------------------------------------ what checks do

    def add(self, job_input: Any) -> str:
        """Queue a job with this input; its id."""
        job_id = self.new_id()
        self.add_raw({"id": job_id, "input": job_input})
        return job_id

    def add_raw(self, *jobs: Any) -> None:
        """Queue these, whatever they are."""
        self._queue.extend(json.dumps(job).encode() for job in jobs)
        self._wake()

    def new_id(self) -> str:
        """A job id that was not used before."""
        self._made += 1
        return f"job-{self._made}-u1"

    def stop(self, job_id: str) -> None:
        """Tell the worker to stop the job."""
        self._stops.append(job_id)
        self._wake()

    def of(self, job_id: str, what: str = "done") -> list[Heard]:
        """What was heard of a job, in order."""
        return [one for one in self.heard if one.job_id == job_id and one.what == what]

    async def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """The condition's value once it is true; it is tried whenever something is heard."""
        try:
            async with asyncio.timeout(patience_s):
                while not (value := condition()):
                    self._changed.clear()
                    await self._changed.wait()
                return value
        except TimeoutError:
            raise Unmet(f"{what}: not within {patience_s:g} s") from None

    async def result(self, job_id: str, patience_s: float = PATIENCE_S) -> Heard:
        """The job-done that ends the job and was accepted."""

        def final() -> Heard | None:
            return next((one for one in self.of(job_id) if one.final and one.status == 200), None)

        found: Heard = await self.until(final, f"the result of {job_id}", patience_s)
        return found

    async def running(self, job_id: str) -> None:
        """Return when the worker's ping has said that it holds the job."""
        await self.until(lambda: self.pinged(job_id), f"a ping that lists {job_id}")

    def pinged(self, job_id: str) -> list[Heard]:
        """The pings that listed the job."""
        return [one for one in self.heard if one.what == "ping" and job_id in one.query.get("job_id", "").split(",")]

    async def asked(self) -> None:
        """Return when the worker has asked for a job."""
        await self.until(lambda: any(one.what in ("take", "batch") for one in self.heard), "a job-take")

    async def quiet(self, seconds: float) -> None:
        """Let the worker do what it does for a while."""
        await asyncio.sleep(seconds)

    # ------------------------------------------------------------ what the worker is told

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        parts = path.strip("/").split("/")
        need(len(parts) >= 4, f"a request to {request.raw_path}")
        what = parts[2].removeprefix("job-").replace("take-batch", "batch")
        job_id = unquote(parts[4]) if len(parts) > 4 else ""
        body = await request.content.read()
        status = self.fault(what) if self.fault is not None else None
        told = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        headers = dict(request.headers)
        seen = Heard(what, parts[3], job_id, told, headers, body, time.monotonic(), 200 if status is None else status)
        self.heard.append(seen)
        self._wake()
        if status is not None:
            return self._refuse(request, status)
        if what in ("take", "batch"):
            return await self._take(seen, request)
        return await self._stop(request) if what == "stop" else web.Response()

    def _refuse(self, request: web.BaseRequest, status: int) -> web.StreamResponse:
        if status == 0 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 500)

    async def _take(self, seen: Heard, request: web.BaseRequest) -> web.Response:
        if not await self._held(lambda: self._queue, request):
            return web.Response(status=204)
        size = int(seen.query.get("batch_size", "1")) if seen.what == "batch" else 1
        jobs = [self._queue.popleft() for _ in range(min(size, len(self._queue)))]
        body = b"[" + b",".join(jobs) + b"]" if seen.what == "batch" else jobs[0]
        return web.Response(body=body, content_type="application/json")

    async def _stop(self, request: web.BaseRequest) -> web.Response:
        if not await self._held(lambda: self._stops, request):
            return web.Response(status=204)
        told, self._stops = self._stops, []
        return web.json_response({"jobsToStop": told})

    async def _held(self, condition: Callable[[], Any], request: web.BaseRequest) -> bool:
        """Whether there is something to tell, and somebody to tell it to."""
        deadline = time.monotonic() + HOLD_S
        while not condition() and not self._closed and (left := deadline - time.monotonic()) > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await asyncio.wait((waiter,), timeout=left)
            if request.transport is None or request.transport.is_closing():
                return False
        return bool(condition()) and not self._closed

    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def _wake(self) -> None:
        self._changed.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
