"""The service that is checked, as its callers and its workers see it.

The workers send what the reference SDK sends, odd content types included, without our extensions.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import aiohttp

from .check import RequirementFailed, require, require_equal, truncate

TIMEOUT_S = 20.0
"""How long each step waits; then its requirement has failed."""

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the service, read to its end."""

    status: int
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise RequirementFailed(f"expected JSON, got status {self.status} with {truncate(self.body)}") from None


@dataclass
class FakeWorker:
    """A worker whose requests the check makes."""

    service: ServiceUnderTest
    name: str

    async def take(self, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait for the next job and return it."""
        path = f"job-take/{self.name}?gpu=NVIDIA+A40&job_in_progress=0"
        return await self._take(path, timeout_s)

    async def take_batch(self, size: int, timeout_s: float = TIMEOUT_S) -> list[Any]:
        """Wait for the next jobs, at most `size`."""
        path = f"job-take-batch/{self.name}?gpu=NVIDIA+A40&batch_size={size}&job_in_progress=0"
        jobs = await self._take(path, timeout_s)
        return jobs if isinstance(jobs, list) else [jobs]

    async def _take(self, path: str, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                while (reply := await self.service.send("GET", path)).status != 200:
                    require(
                        reply.status in (204, 400), f"job-take: got status {reply.status} with {truncate(reply.body)}"
                    )
        except TimeoutError:
            raise RequirementFailed(f"job-take: no job within {timeout_s:g} s") from None
        require_equal(reply.content_type, "application/json", "content type of job-take")
        return reply.json

    async def finish(self, job: Any, body: Any, *, query: str = "&isStream=false") -> Reply:
        """Send a result: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
        path = f"job-done/{self.name}/{_id(job)}?gpu=NVIDIA+A40{query}"
        reply = await self.service.send("POST", path, data=data, headers=headers)
        require(200 <= reply.status < 300, f"job-done: got status {reply.status} with {truncate(reply.body)}")
        return reply

    async def end_stream(self, job: Any, output: Any = None) -> None:
        """Report that the generator has ended."""
        await self.finish(job, {"output": output or []}, query="&isStream=true")

    async def send_chunk(self, job: Any, value: Any) -> None:
        """Send one chunk."""
        path = f"job-stream/{self.name}/{_id(job)}?gpu=NVIDIA+A40&isStream=false"
        reply = await self.service.send("POST", path, data=json.dumps({"output": value}).encode())
        require(200 <= reply.status < 300, f"job-stream: got status {reply.status} with {truncate(reply.body)}")

    async def ping(self, *jobs: Any) -> None:
        """Send a heartbeat that lists these jobs."""
        listed = f"&job_id={'%2C'.join(_id(job) for job in jobs)}" if jobs else ""
        reply = await self.service.send("GET", f"ping/{self.name}?gpu=NVIDIA+A40{listed}&runpod_version=1.12.0")
        require(200 <= reply.status < 300, f"ping: got status {reply.status}")

    async def ping_until_cancelled(self, *jobs: Any) -> None:
        """Send heartbeats for these jobs, often enough for a short lease."""
        while True:
            await self.ping(*jobs)
            await asyncio.sleep(min(2.0, (self.service.lease_s or 10.0) / 4))

    async def receive_stops(self) -> list[str]:
        """Wait until the service names jobs to stop, and return their ids."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while (reply := await self.service.send("GET", f"job-stop/{self.name}?gpu=NVIDIA+A40")).status != 200:
                    require(reply.status == 204, f"job-stop: got status {reply.status}")
        except TimeoutError:
            raise RequirementFailed(f"job-stop: no job named within {TIMEOUT_S:g} s") from None
        job_ids: list[str] = reply.json.get("jobsToStop")
        return job_ids


def _id(job: Any) -> str:
    return str(job["id"]) if isinstance(job, dict) else str(job)


@dataclass
class ServiceUnderTest:
    """One endpoint of the service. `lease_s` is how long a silent worker keeps its jobs."""

    session: aiohttp.ClientSession
    url: str
    key: str | None = None
    lease_s: float | None = None
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, method: str, path: str, *, key: str | None = None, **more: Any) -> Reply:
        """Send a request to the endpoint, with the key in the form most callers use."""
        headers = dict(more.pop("headers", {}))
        if self.key is not None and key is None:
            headers["Authorization"] = f"Bearer {self.key}"
        elif key:
            headers["Authorization"] = key
        url = f"{self.url}/{path}" if not path.startswith("http") else path
        async with self.session.request(method, url, headers=headers, **more) as reply:
            return Reply(reply.status, reply.content_type, await reply.read())

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request, require status 200, and return the JSON of the reply."""
        reply = await self.send(method, path, json=body)
        require(
            reply.status == 200,
            f"{method} /{path.partition('?')[0]}: got status {reply.status}: {truncate(reply.body)}",
        )
        return reply.json

    async def submit(self, job_input: Any, **more: Any) -> str:
        """Submit a job and return its id."""
        view = await self.call("POST", "run", {"input": job_input, **more})
        require(isinstance(view.get("id"), str), f"/run: expected an id, got {truncate(view)}")
        return str(view["id"])

    async def get_view(self, job: Any) -> Any:
        """Return the job's view."""
        return await self.call("GET", f"status/{_id(job)}")

    async def until_status(self, job: Any, *statuses: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait until the job has one of these statuses and return its view."""
        end = monotonic() + timeout_s
        while (view := await self.get_view(job))["status"] not in statuses:
            require(
                monotonic() < end, f"the job is {view['status']}, not {' or '.join(statuses)}, after {timeout_s:g} s"
            )
            require(view["status"] not in FINAL, f"the job is {view['status']}, expected {' or '.join(statuses)}")
            await asyncio.sleep(0.05)
        return view

    def new_worker(self) -> FakeWorker:
        """Return a worker with a new name."""
        return FakeWorker(self, f"conformance-{next(self._numbers)}")

    async def start_job(self, job_input: Any, **more: Any) -> tuple[FakeWorker, Any]:
        """Submit a job, let a new worker take it, and return both."""
        job_id = await self.submit(job_input, **more)
        worker = self.new_worker()
        job = await worker.take()
        require_equal(job.get("id"), job_id, "the id of the job taken (is another worker on this endpoint?)")
        return worker, job


@asynccontextmanager
async def connect(url: str, key: str | None, lease_s: float | None) -> AsyncIterator[ServiceUnderTest]:
    """Connect to the endpoint at `url` (`http://host/v2/ENDPOINT`)."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield ServiceUnderTest(session, url.rstrip("/"), key, lease_s)
