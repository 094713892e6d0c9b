"""A job service that only answers workers and counts.

It runs inside the benchmark's own process and stores nothing: a job is bytes in a deque. `delay` is added to every
reply and simulates a network. With `extensions` it negotiates those of docs/extensions.md; without them it is RunPod's.

It is not a ScriptedService. That one needs 60 us of aiohttp for a request and keeps every body; on two cores the
difference would be charged to the worker. This one needs 15 us.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from benchmarks.lean_http import Request, Response, Server

POLL_TIMEOUT_S = 20.0
NEGOTIATED = "attempt chunks return stop take timings"
DONE = Response(200, b"{}")


@dataclass
class Seen:
    """The record of one run. Times are seconds of time.monotonic(), which the worker's processes share."""

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
    releases: int = 0


class FakeService:
    """`add` queues jobs; `seen` records what happens to them."""

    def __init__(self, *, delay: float = 0.0, extensions: bool = False, keep_bodies: bool = True) -> None:
        headers = f"X-Worker-Extensions: {NEGOTIATED}\r\n" if extensions else ""
        self._server = Server(self._handle, delay=delay, headers=headers)
        self.keep_bodies = keep_bodies
        self.seen = Seen()
        self.queue: deque[tuple[str, bytes]] = deque()
        self.polls: deque[asyncio.Future[None]] = deque()
        self.stops: deque[str] = deque()
        self.stop_polls: deque[asyncio.Future[None]] = deque()
        self.expected = 0
        self.finished = asyncio.Event()
        self.port = 0

    # -------------------------------------------------------------- direct it

    async def start(self, port: int = 0) -> None:
        self.port = await self._server.start(port)

    async def close(self) -> None:
        for poll in (*self.polls, *self.stop_polls):
            poll.cancel()
        await self._server.close()

    def reset(self, expected: int) -> None:
        """Start a new record; `finished` is set after `expected` results."""
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

    def environment(self, worker_id: str = "benchmark") -> dict[str, str]:
        base = f"http://127.0.0.1:{self.port}/v2/benchmark"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/{worker_id}?gpu=x",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/{worker_id}/$ID?gpu=x",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/{worker_id}/$ID?gpu=x",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/{worker_id}?gpu=x",
            "RUNPOD_AI_API_KEY": "benchmark",
            "RUNPOD_POD_ID": worker_id,
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_LOG_LEVEL": "ERROR",
        }

    # -------------------------------------------------------------- the protocol

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        self.seen.requests += 1
        route, _, tail = request.path[len("/v2/benchmark/") :].partition("/")
        match route:
            case "job-take" | "job-take-batch":
                return self._take(request, batch=route == "job-take-batch")
            case "job-done":
                return self._done(request, unquote(tail.rpartition("/")[2]))
            case "job-stream":
                return self._stream(request, unquote(tail.rpartition("/")[2]))
            case "job-stop":
                return self._stop()
            case "job-return":
                self.seen.releases += 1
                return Response(200, b'{"returned": 0}')
            case _:
                return DONE

    def _take(self, request: Request, *, batch: bool) -> Response | Awaitable[Response]:
        if self.seen.first_take is None:
            self.seen.first_take = time.monotonic()
        max_jobs = int(parse_qs(request.query).get("batch_size", ["1"])[0]) if batch else 1
        negotiated = bool(request.header(b"x-worker-extensions"))
        return self._jobs(max_jobs, batch, negotiated) if self.queue else self._poll_take(max_jobs, batch, negotiated)

    async def _poll_take(self, max_jobs: int, batch: bool, negotiated: bool) -> Response:
        return self._jobs(max_jobs, batch, negotiated) if await self._hold(self.polls) else Response(204)

    def _jobs(self, max_jobs: int, batch: bool, negotiated: bool) -> Response:
        jobs = self._pop(max_jobs, attempt=negotiated)
        if self.queue:
            self._wake(self.polls)
        if not jobs:
            return Response(204)
        return Response(200, b"[" + b",".join(jobs) + b"]" if batch else jobs[0])

    async def _hold(self, polls: deque[asyncio.Future[None]]) -> bool:
        poll: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        polls.append(poll)
        try:
            await asyncio.wait_for(poll, POLL_TIMEOUT_S)
        except TimeoutError:
            return False
        return True

    def _pop(self, max_jobs: int, *, attempt: bool) -> list[bytes]:
        jobs: list[bytes] = []
        now = time.monotonic()
        while self.queue and len(jobs) < max_jobs:
            job_id, body = self.queue.popleft()
            self.seen.taken[job_id] = now
            jobs.append(b'{"attempt":1,' + body[1:] if attempt else body)
        return jobs

    def _done(self, request: Request, job_id: str) -> Response:
        if _may_be_progress(request.body):
            value = json.loads(bytes(request.body))
            if value.get("status") == "IN_PROGRESS":
                self.seen.progress.append((job_id, value["output"], job_id in self.seen.done))
                return DONE
        self.seen.done[job_id] = time.monotonic()
        if self.keep_bodies:
            self.seen.bodies[job_id] = bytes(request.body)
        if len(self.seen.done) >= self.expected:
            self.finished.set()
        max_jobs = int(request.header(b"x-take") or 0)
        return Response(200, b"[" + b",".join(self._pop(max_jobs, attempt=True)) + b"]") if max_jobs else DONE

    def _stream(self, request: Request, job_id: str) -> Response:
        now = time.monotonic()
        self.seen.chunk_posts += 1
        is_batch = b'"outputs"' in bytes(request.body[:400])
        self.seen.chunks += len(json.loads(bytes(request.body))["outputs"]) if is_batch else 1
        self.seen.first_chunk.setdefault(job_id, now)
        self.seen.last_chunk[job_id] = now
        return DONE

    def _stop(self) -> Response | Awaitable[Response]:
        return self._stops_reply() if self.stops else self._poll_stop()

    async def _poll_stop(self) -> Response:
        return self._stops_reply() if await self._hold(self.stop_polls) else Response(204)

    def _stops_reply(self) -> Response:
        stops, self.stops = list(self.stops), deque()
        return Response(200, json.dumps({"jobsToStop": stops}).encode())


def _may_be_progress(body: memoryview) -> bool:
    """Whether the status may be IN_PROGRESS: the reference SDK writes it last, ours first."""
    return b'"IN_PROGRESS"' in bytes(body[:200]) or b'"IN_PROGRESS"' in bytes(body[-200:])
