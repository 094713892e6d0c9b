"""A caller and a worker, played against a job service that is checked.

Workers speak RunPod's protocol as the reference SDK does, odd content types included, and none of our extensions.
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

from .check import Unmet, need, same, short

PATIENCE_S = 20.0
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
            raise Unmet(f"expected JSON, got status {self.status} with {short(self.body)}") from None


@dataclass
class Pod:
    """A played worker."""

    ends: Ends
    name: str

    async def take(self, patience_s: float = PATIENCE_S) -> Any:
        """The next job."""
        path = f"job-take/{self.name}?gpu=NVIDIA+A40&job_in_progress=0"
        return await self._taken(path, patience_s)

    async def take_batch(self, size: int, patience_s: float = PATIENCE_S) -> list[Any]:
        """The next jobs, at most `size`."""
        path = f"job-take-batch/{self.name}?gpu=NVIDIA+A40&batch_size={size}&job_in_progress=0"
        jobs = await self._taken(path, patience_s)
        return jobs if isinstance(jobs, list) else [jobs]

    async def _taken(self, path: str, patience_s: float) -> Any:
        try:
            async with asyncio.timeout(patience_s):
                while (reply := await self.ends.send("GET", path)).status != 200:
                    need(reply.status in (204, 400), f"job-take: got status {reply.status} with {short(reply.body)}")
        except TimeoutError:
            raise Unmet(f"job-take: no job within {patience_s:g} s") from None
        same(reply.content_type, "application/json", "content type of job-take")
        return reply.json

    async def done(self, job: Any, body: Any, *, query: str = "&isStream=false") -> Reply:
        """Post a result (bytes as they are, anything else as JSON)."""
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
        path = f"job-done/{self.name}/{_id(job)}?gpu=NVIDIA+A40{query}"
        reply = await self.ends.send("POST", path, data=data, headers=headers)
        need(200 <= reply.status < 300, f"job-done: got status {reply.status} with {short(reply.body)}")
        return reply

    async def ended(self, job: Any, output: Any = None) -> None:
        """Post that a generator has ended."""
        await self.done(job, {"output": output or []}, query="&isStream=true")

    async def chunk(self, job: Any, value: Any) -> None:
        """Post one chunk."""
        path = f"job-stream/{self.name}/{_id(job)}?gpu=NVIDIA+A40&isStream=false"
        reply = await self.ends.send("POST", path, data=json.dumps({"output": value}).encode())
        need(200 <= reply.status < 300, f"job-stream: got status {reply.status} with {short(reply.body)}")

    async def ping(self, *jobs: Any) -> None:
        """Say that it holds these jobs."""
        listed = f"&job_id={'%2C'.join(_id(job) for job in jobs)}" if jobs else ""
        reply = await self.ends.send("GET", f"ping/{self.name}?gpu=NVIDIA+A40{listed}&runpod_version=1.12.0")
        need(200 <= reply.status < 300, f"ping: got status {reply.status}")

    async def beat(self, *jobs: Any) -> None:
        """Ping for these jobs until cancelled, as often as a short lease needs it."""
        while True:
            await self.ping(*jobs)
            await asyncio.sleep(min(2.0, (self.ends.lease_s or 10.0) / 4))

    async def stops(self) -> list[str]:
        """The jobs it is told to stop, once there are some."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (reply := await self.ends.send("GET", f"job-stop/{self.name}?gpu=NVIDIA+A40")).status != 200:
                    need(reply.status == 204, f"job-stop: got status {reply.status}")
        except TimeoutError:
            raise Unmet(f"job-stop: told nothing within {PATIENCE_S:g} s") from None
        told: list[str] = reply.json.get("jobsToStop")
        return told


def _id(job: Any) -> str:
    return str(job["id"]) if isinstance(job, dict) else str(job)


@dataclass
class Ends:
    """Both ends of one endpoint of a service. `lease_s` is how long it lets a silent worker keep a job."""

    session: aiohttp.ClientSession
    url: str
    key: str | None = None
    lease_s: float | None = None
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def send(self, method: str, path: str, *, key: str | None = None, **more: Any) -> Reply:
        """A request to the endpoint, with the key in the form most callers send it."""
        headers = dict(more.pop("headers", {}))
        if self.key is not None and key is None:
            headers["Authorization"] = f"Bearer {self.key}"
        elif key:
            headers["Authorization"] = key
        url = f"{self.url}/{path}" if not path.startswith("http") else path
        async with self.session.request(method, url, headers=headers, **more) as reply:
            return Reply(reply.status, reply.content_type, await reply.read())

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a reply that has to be a 200."""
        reply = await self.send(method, path, json=body)
        need(reply.status == 200, f"{method} /{path.partition('?')[0]}: got status {reply.status}: {short(reply.body)}")
        return reply.json

    async def run(self, job_input: Any, **more: Any) -> str:
        """Submit a job; its id."""
        view = await self.call("POST", "run", {"input": job_input, **more})
        need(isinstance(view.get("id"), str), f"/run: expected an id, got {short(view)}")
        return str(view["id"])

    async def status(self, job: Any) -> Any:
        """The job's view."""
        return await self.call("GET", f"status/{_id(job)}")

    async def until(self, job: Any, *statuses: str, patience_s: float = PATIENCE_S) -> Any:
        """The job's view once it has one of these statuses."""
        end = monotonic() + patience_s
        while (view := await self.status(job))["status"] not in statuses:
            need(monotonic() < end, f"the job is {view['status']}, not {' or '.join(statuses)}, after {patience_s:g} s")
            need(view["status"] not in FINAL, f"the job is {view['status']}, expected {' or '.join(statuses)}")
            await asyncio.sleep(0.05)
        return view

    def pod(self) -> Pod:
        """A worker with a new name."""
        return Pod(self, f"conformance-{next(self._numbers)}")

    async def started(self, job_input: Any, **more: Any) -> tuple[Pod, Any]:
        """A job that a new worker has taken."""
        job_id = await self.run(job_input, **more)
        pod = self.pod()
        job = await pod.take()
        same(job.get("id"), job_id, "the id of the job that was handed out (is another worker on this endpoint?)")
        return pod, job


@asynccontextmanager
async def ends(url: str, key: str | None, lease_s: float | None) -> AsyncIterator[Ends]:
    """Both ends of the endpoint at `url` (`http://host/v2/ENDPOINT`)."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Ends(session, url.rstrip("/"), key, lease_s)
