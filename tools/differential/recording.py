"""A job service that records the requests of workers. It implements RunPod's protocol without our extensions."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

LONG_POLL_TIMEOUT_S = 30.0
ROUTES = ("job-take", "job-take-batch", "job-stop", "ping")


@dataclass(frozen=True)
class Request:
    """One request of a worker. The path is what follows `/v2/ENDPOINT`."""

    method: str
    path: str
    query: str
    body: Any = None


Answers = dict[str, list[Request]]
"""By case: the requests about the job, in order."""


@dataclass
class Seen:
    """The requests of one worker: about each job, in order, and the first of each other kind."""

    jobs: dict[str, list[Request]] = field(default_factory=dict)
    first: dict[str, Request] = field(default_factory=dict)
    unhealthy: list[Request] = field(default_factory=list)
    """Heartbeats that report a failed check."""
    waiting: deque[dict[str, Any]] = field(default_factory=deque)
    open: set[str] = field(default_factory=set)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Every job was reported."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """The worker requested a job when none was left."""


class Recorder:
    """Serves any number of workers, each on an endpoint of its own."""

    def __init__(self) -> None:
        self.workers: dict[str, Seen] = {}
        self.port = 0
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def expect(self, endpoint: str, jobs: list[dict[str, Any]]) -> Seen:
        """Queue these jobs for the worker of this endpoint."""
        names = {str(job["id"]) for job in jobs}
        seen = Seen(waiting=deque(jobs), open=set(names), jobs={name: [] for name in names})
        self.workers[endpoint] = seen
        return seen

    def environment(self, endpoint: str) -> dict[str, str]:
        base = f"http://127.0.0.1:{self.port}/v2/{endpoint}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/pod-1?gpu=A40",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=A40",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=A40",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=A40",
            "RUNPOD_AI_API_KEY": "key",
            "RUNPOD_POD_ID": "pod-1",
            "RUNPOD_POD_HOSTNAME": "host-1",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_LOG_LEVEL": "ERROR",
        }

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        _, _, endpoint, route, *segments = request.path.split("/")
        seen = self.workers[endpoint]
        body = await request.content.read()  # `request.read` has a limit
        path = f"/{route}/{'/'.join(segments)}"
        recorded = Request(request.method, path, request.query_string, json.loads(body) if body else None)
        if route in ROUTES:
            seen.first.setdefault(route, recorded)
            if "status=unhealthy" in recorded.query:
                seen.unhealthy.append(recorded)
        else:
            self._record(seen, unquote(segments[-1]), route, recorded)
        if route.startswith("job-take"):
            return await self._take(seen, batch=route.endswith("batch"), query=request.query)
        if route == "job-stop":
            return await self._no_job()
        return web.Response(body=b"{}", content_type="application/json")

    @staticmethod
    def _record(seen: Seen, job: str, route: str, request: Request) -> None:
        seen.jobs[job].append(request)
        progress = isinstance(request.body, dict) and request.body.get("status") == "IN_PROGRESS"
        if route == "job-done" and not progress:
            seen.open.discard(job)
        if not seen.open:
            seen.finished.set()

    async def _take(self, seen: Seen, *, batch: bool, query: Any) -> web.Response:
        if not seen.waiting:
            seen.idle.set()
            return await self._no_job()
        jobs = [seen.waiting.popleft() for _ in range(min(int(query.get("batch_size", 1)), len(seen.waiting)))]
        return web.json_response(jobs if batch else jobs[0])

    async def _no_job(self) -> web.Response:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), LONG_POLL_TIMEOUT_S)
        return web.Response(status=204)
