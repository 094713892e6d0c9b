"""A job service for checking a worker: it answers as scripted and records every request.

It implements RunPod's protocol without our extensions. Subclasses add routes in `routes` and headers in `headers`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from .check import RequirementFailed, truncate

CUT = "cut"
"""A scripted answer: close the connection without a reply."""

Answer = int | str | bytes | tuple[int, bytes] | tuple[int, bytes, dict[str, str]]
"""A status, CUT, a JSON body, or a status with a body and perhaps headers."""

TAKES = ("job-take", "job-take-batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRequest:
    """A request of the worker. `route` is the wire's name: job-take, job-done, ping and so on."""

    route: str
    method: str
    target: str
    """Path and query as sent."""

    query: dict[str, str]
    headers: dict[str, str]
    """Their names are in lower case."""

    body: bytes
    at: float
    status: int
    """The scripted status; 200 without a script, 0 for a closed connection."""

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self.target.partition("?")[0])

    @property
    def worker(self) -> str:
        """The worker's name in the path."""
        return unquote(self._segments[3])

    @property
    def job_id(self) -> str:
        """The last segment of the path: the job's id in job-done and job-stream."""
        return unquote(self._segments[-1])

    @property
    def json(self) -> Any:
        """The body, as strict JSON."""
        try:
            return json.loads(self.body, parse_constant=_reject_constant)
        except ValueError as exc:
            raise RequirementFailed(f"{self.route}: the body is not JSON ({exc}): {truncate(self.body)}") from exc

    @property
    def is_final(self) -> bool:
        """Whether it ends its job."""
        return self.route == "job-done" and b'"IN_PROGRESS"' not in self.body

    @property
    def _segments(self) -> list[str]:
        return self.target.partition("?")[0].strip("/").split("/")


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


@dataclass(slots=True)
class Script:
    """The scripted answers of a route: `answers` in order, then always `status`; each after `delay_s`."""

    answers: deque[Answer] = field(default_factory=deque)
    status: int | None = None
    delay_s: float = 0.0

    def next_answer(self) -> Answer | None:
        """The scripted answer to the next request, or None: answer as the protocol says."""
        return self.answers.popleft() if self.answers else self.status


class ScriptedService:
    """Queue jobs with `submit` or `enqueue`; read the worker's requests from `requests`."""

    timeout_s = 20.0
    """How long `until` waits; then the requirement has failed."""

    def __init__(self) -> None:
        self.requests: list[WorkerRequest] = []
        self.port = 0
        self.poll_timeout_s = 30.0
        self.headers: dict[str, str] = {}
        """Sent with every reply that is not scripted."""
        self.routes: dict[str, Callable[[WorkerRequest, web.BaseRequest], Awaitable[web.Response]]] = {
            "job-take": self._take,
            "job-take-batch": self._take,
            "job-stop": self._stop,
            "job-done": self._accept,
            "job-stream": self._accept,
            "ping": self._accept,
        }
        self.jobs: deque[Any] = deque()
        self._stops: deque[list[str]] = deque()
        self._scripts: dict[str, Script] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._runner: web.ServerRunner | None = None
        self._last_job = 0

    @property
    def url(self) -> str:
        """The URL of its one endpoint."""
        return f"http://127.0.0.1:{self.port}/v2/ep"

    async def open(self) -> None:
        """Listen on loopback: on a free port, and after a `close` on the same port again."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Refuse new connections and cut the open ones."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def environment(self, worker: str) -> dict[str, str]:
        """The environment that the platform gives a worker."""
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/{worker}?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+A40",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/$RUNPOD_POD_ID?gpu=NVIDIA+A40",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": worker,
            "RUNPOD_ENDPOINT_ID": "ep",
            "RUNPOD_AI_API_KEY": "conformance-key",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        }

    # ------------------------------------------------------------ direct it

    def submit(self, job_input: Any) -> str:
        """Queue a job with this input and return its id."""
        job_id = self.new_job_id()
        self.enqueue({"id": job_id, "input": job_input})
        return job_id

    def enqueue(self, *jobs: Any) -> None:
        """Queue these values as jobs, even if they are not valid jobs."""
        self.jobs.extend(jobs)
        self.wake()

    def new_job_id(self) -> str:
        """A job id that this service has not used."""
        self._last_job += 1
        return f"job-{self._last_job}-u1"

    def request_stop(self, *job_ids: str) -> None:
        """Name these jobs in the next answer to job-stop."""
        self._stops.append(list(job_ids))
        self.wake()

    def script(self, route: str, *answers: Answer) -> None:
        """Answer the next requests to the route with these, in order."""
        self._script(route).answers.extend(answers)

    def fail(self, *routes: str, status: int) -> None:
        """Answer every request to these routes with the status, until `recover`."""
        for route in routes:
            self._script(route).status = status

    def delay(self, route: str, delay_s: float) -> None:
        """Answer every request to the route this much later, until `recover`."""
        self._script(route).delay_s = delay_s

    def recover(self) -> None:
        """Forget all scripts: answer as the protocol says."""
        self._scripts.clear()

    # ------------------------------------------------------------ observe the worker

    def received(self, *routes: str, job_id: str | None = None) -> list[WorkerRequest]:
        """The requests to these routes, in order; with `job_id`, only those for that job."""
        requests = (request for request in self.requests if request.route in routes)
        return [request for request in requests if job_id is None or request.job_id == job_id]

    async def until(self, condition: Callable[[], Any], what: str = "the condition", timeout_s: float = 0.0) -> Any:
        """Wait until the condition holds and return its value; evaluate it whenever a request arrives."""
        timeout_s = timeout_s or self.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := condition()):
                    await self._next_change()
                return value
        except TimeoutError:
            raise RequirementFailed(f"{what}: not within {timeout_s:g} s") from None

    async def final_report(self, job_id: str, timeout_s: float = 0.0) -> WorkerRequest:
        """The accepted job-done that ends the job, once it has arrived."""

        def final() -> WorkerRequest | None:
            reports = self.received("job-done", job_id=job_id)
            return next((report for report in reports if report.is_final and report.status == 200), None)

        report: WorkerRequest = await self.until(final, f"the result of {job_id}", timeout_s)
        return report

    async def until_running(self, job_id: str) -> None:
        """Wait until a ping lists the job."""
        await self.until(lambda: self.pings_listing(job_id), f"a ping that lists {job_id}")

    def pings_listing(self, job_id: str) -> list[WorkerRequest]:
        """The pings that list the job."""
        return [ping for ping in self.received("ping") if job_id in ping.query.get("job_id", "").split(",")]

    async def until_take(self, timeout_s: float = 0.0) -> None:
        """Wait until the worker has asked for a job."""
        await self.until(lambda: self.received(*TAKES), "a first job-take", timeout_s)

    # ------------------------------------------------------------ answer the worker

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        segments = request.raw_path.partition("?")[0].strip("/").split("/")
        route = segments[2] if len(segments) > 2 else request.path
        script = self._script(route)
        body = await request.content.read()
        answer = script.next_answer()
        record = WorkerRequest(
            route=route,
            method=request.method,
            target=request.raw_path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            at=time.monotonic(),
            status=_status(answer),
        )
        self.requests.append(record)
        self.wake()
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if answer is not None:
            return _scripted_reply(answer, request)
        if route not in self.routes:
            return web.Response(status=404, text="no such route")
        reply = await self.routes[route](record, request)
        reply.headers.update(self.headers)
        return reply

    async def _take(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        if not await self.hold(self.jobs, request):
            return web.Response(status=204)
        is_batch = record.route == "job-take-batch"
        jobs = self.pop_jobs(int(record.query.get("batch_size", "1")) if is_batch else 1)
        return web.json_response(jobs if is_batch else jobs[0])

    def pop_jobs(self, max_jobs: int) -> list[Any]:
        """Remove and return the next jobs."""
        return [self.jobs.popleft() for _ in range(min(max_jobs, len(self.jobs)))]

    async def _stop(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        if not await self.hold(self._stops, request):
            return web.Response(status=204)
        return web.json_response({"jobsToStop": self._stops.popleft()})

    async def _accept(self, record: WorkerRequest, request: web.BaseRequest) -> web.Response:
        return web.json_response({})

    async def hold(self, items: deque[Any], request: web.BaseRequest) -> bool:
        """Wait, as a long poll does, until there are items; False if there are none in time or the worker has gone."""
        try:
            async with asyncio.timeout(self.poll_timeout_s):
                while not items:
                    await self._next_change()
        except TimeoutError:
            return False
        return request.transport is not None and not request.transport.is_closing()

    def _script(self, route: str) -> Script:
        return self._scripts.setdefault(route, Script())

    async def _next_change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let everything that waits look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _status(answer: Answer | None) -> int:
    match answer:
        case int():
            return answer
        case str():
            return 0
        case tuple():
            return answer[0]
        case _:
            return 200


def _scripted_reply(answer: Answer, request: web.BaseRequest) -> web.StreamResponse:
    match answer:
        case str():
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        case int():
            return web.Response(status=answer, text=f"scripted {answer}")
        case bytes():
            return web.Response(body=answer, content_type="application/json")
        case (status, body, *headers):
            return web.Response(
                status=status, body=body, content_type="application/json", headers=headers[0] if headers else None
            )
