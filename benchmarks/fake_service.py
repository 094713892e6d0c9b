"""A job service that does nothing but speak the worker protocol and count.

It runs inside the benchmark's own process. Nothing is stored; a job is bytes in a deque. `delay` is added to every
reply, to stand for a network. With `extensions` it agrees to what docs/extensions.md describes; without them it is
RunPod's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from aiohttp import web

HOLD_S = 20.0
AGREED = "attempt chunks return stop take timings"
JSON = {"Content-Type": "application/json"}


@dataclass
class Seen:
    """What the service saw of one run; times are time.monotonic() seconds, which the worker's processes share."""

    requests: int = 0
    taken: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    progress: list[tuple[str, int, bool]] = field(default_factory=list)
    chunk_posts: int = 0
    chunks: int = 0
    first_chunk: dict[str, float] = field(default_factory=dict)
    last_chunk: dict[str, float] = field(default_factory=dict)
    first_take: float | None = None
    returned: int = 0


class FakeService:
    """Jobs go in by `add`; `seen` is what came of them."""

    def __init__(self, *, delay: float = 0.0, extensions: bool = False, keep_bodies: bool = True) -> None:
        self.delay = delay
        self.extensions = extensions
        self.keep_bodies = keep_bodies
        self.seen = Seen()
        self.queue: deque[tuple[str, bytes]] = deque()
        self.polls: deque[asyncio.Future[None]] = deque()
        self.stops: deque[str] = deque()
        self.stop_polls: deque[asyncio.Future[None]] = deque()
        self.expected = 0
        self.finished = asyncio.Event()
        self.port = 0
        self._runner: web.ServerRunner | None = None

    # -------------------------------------------------------------- driving it

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None))  # type: ignore[arg-type]
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        for poll in (*self.polls, *self.stop_polls):
            poll.cancel()
        if self._runner:
            await self._runner.cleanup()

    def reset(self, expected: int) -> None:
        """Forget what was seen and wait for `expected` results from now on."""
        self.seen = Seen()
        self.expected = expected
        self.finished = asyncio.Event()

    def add(self, job_id: str, job_input: object) -> None:
        self.add_raw(job_id, json.dumps({"id": job_id, "input": job_input}).encode())

    def add_raw(self, job_id: str, body: bytes) -> None:
        self.queue.append((job_id, body))
        self._wake(self.polls)

    def stop(self, job_id: str) -> None:
        self.stops.append(job_id)
        self._wake(self.stop_polls)

    @staticmethod
    def _wake(polls: deque[asyncio.Future[None]]) -> None:
        while polls:
            poll = polls.popleft()
            if not poll.done():
                poll.set_result(None)
                return

    def environment(self, worker_id: str = "bench") -> dict[str, str]:
        base = f"http://127.0.0.1:{self.port}/v2/bench"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/{worker_id}?gpu=bench",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{worker_id}/$ID?gpu=bench",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/{worker_id}/$ID?gpu=bench",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/{worker_id}?gpu=bench",
            "RUNPOD_AI_API_KEY": "bench",
            "RUNPOD_POD_ID": worker_id,
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_LOG_LEVEL": "ERROR",
        }

    # -------------------------------------------------------------- the protocol

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.requests += 1
        route, _, rest = request.path[len("/v2/bench/") :].partition("/")
        match route:
            case "job-take" | "job-take-batch":
                reply = await self._take(request)
            case "job-done":
                reply = await self._done(request, unquote(rest.rpartition("/")[2]))
            case "job-stream":
                reply = await self._stream(request, unquote(rest.rpartition("/")[2]))
            case "job-stop":
                reply = await self._stop(request)
            case "job-return":
                self.seen.returned += 1
                reply = web.Response(body=b'{"returned": 0}', headers=JSON)
            case _:
                reply = web.Response(body=b"{}", headers=JSON)
        if self.extensions:
            reply.headers["X-Worker-Extensions"] = AGREED
        if self.delay:
            await asyncio.sleep(self.delay)
        return reply

    async def _take(self, request: web.BaseRequest) -> web.Response:
        if self.seen.first_take is None:
            self.seen.first_take = time.monotonic()
        batch = "/job-take-batch/" in request.path
        if not self.queue and not await self._hold(self.polls):
            return web.Response(status=204)
        most = int(parse_qs(request.query_string).get("batch_size", ["1"])[0]) if batch else 1
        jobs = self._pop(most, attempt="X-Worker-Extensions" in request.headers)
        if self.queue:
            self._wake(self.polls)
        if not jobs:
            return web.Response(status=204)
        return web.Response(body=b"[" + b",".join(jobs) + b"]" if batch else jobs[0], headers=JSON)

    async def _hold(self, polls: deque[asyncio.Future[None]]) -> bool:
        poll: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        polls.append(poll)
        try:
            await asyncio.wait_for(poll, HOLD_S)
        except TimeoutError:
            return False
        return True

    def _pop(self, most: int, *, attempt: bool) -> list[bytes]:
        jobs = []
        now = time.monotonic()
        while self.queue and len(jobs) < most:
            job_id, body = self.queue.popleft()
            self.seen.taken[job_id] = now
            jobs.append(b'{"attempt":1,' + body[1:] if attempt else body)
        return jobs

    async def _done(self, request: web.BaseRequest, job_id: str) -> web.Response:
        body = await request.read()
        if b'"IN_PROGRESS"' in body[:200] or b'"IN_PROGRESS"' in body[-200:]:
            value = json.loads(body)
            if value.get("status") == "IN_PROGRESS":
                self.seen.progress.append((job_id, value["output"], job_id in self.seen.done))
                return web.Response(body=b"{}", headers=JSON)
        self.seen.done[job_id] = time.monotonic()
        if self.keep_bodies:
            self.seen.bodies[job_id] = body
        if len(self.seen.done) >= self.expected:
            self.finished.set()
        most = int(request.headers.get("X-Take", 0))
        if most:
            return web.Response(body=b"[" + b",".join(self._pop(most, attempt=True)) + b"]", headers=JSON)
        return web.Response(body=b"{}", headers=JSON)

    async def _stream(self, request: web.BaseRequest, job_id: str) -> web.Response:
        body = await request.read()
        now = time.monotonic()
        self.seen.chunk_posts += 1
        self.seen.chunks += len(json.loads(body)["outputs"]) if b'"outputs"' in body[:400] else 1
        self.seen.first_chunk.setdefault(job_id, now)
        self.seen.last_chunk[job_id] = now
        return web.Response(body=b"{}", headers=JSON)

    async def _stop(self, request: web.BaseRequest) -> web.Response:
        if not self.stops and not await self._hold(self.stop_polls):
            return web.Response(status=204)
        stops, self.stops = list(self.stops), deque()
        return web.json_response({"jobsToStop": stops})
