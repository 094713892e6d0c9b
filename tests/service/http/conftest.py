"""A real service on loopback, and raw HTTP ends to it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.server import Server, Stores, open_stores
from runpod_worker.service.settings import ServiceSettings

EXTENSIONS = "attempt chunks files leases return stop take timings"
TIMEOUT_S = 20.0


@dataclass
class Reply:
    """An HTTP reply, read to its end."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """What callers do, on one endpoint."""

    def __init__(self, session: aiohttp.ClientSession, url: str, endpoint: str = "ep") -> None:
        self.session = session
        self.url = url
        self.base = f"{url}/v2/{endpoint}"

    async def send(self, method: str, path: str, **kwargs: Any) -> Reply:
        if isinstance(kwargs.get("data"), bytes):
            kwargs["data"] = io.BytesIO(kwargs["data"])
        async with asyncio.timeout(TIMEOUT_S), self.session.request(method, self.base + path, **kwargs) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **kwargs: Any) -> Reply:
        return await self.send("GET", path, **kwargs)

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> Reply:
        return await self.send("POST", path, json=body, **kwargs)

    async def run(self, source: Any = None, **fields: Any) -> str:
        """Submit a job; its id."""
        reply = await self.post("/run", {"input": source if source is not None else {"n": 1}, **fields})
        assert reply.status == 200, reply.body
        return reply.json["id"]

    async def status(self, job_id: str) -> Any:
        return (await self.get(f"/status/{job_id}")).json


class PlainWorker:
    """What a stock SDK sends: no extension header, odd content types, all in the query."""

    def __init__(self, api: Api, name: str = "pod-1") -> None:
        self.api = api
        self.name = name

    async def take(self) -> Any:
        reply = await self.api.get(f"/job-take/{self.name}?gpu=NVIDIA+A40&job_in_progress=0")
        return reply.json if reply.status == 200 else None

    async def take_batch(self, size: int) -> list[Any]:
        reply = await self.api.get(f"/job-take-batch/{self.name}?gpu=NVIDIA+A40&batch_size={size}&job_in_progress=0")
        return reply.json if reply.status == 200 else []

    async def done(self, job_id: str, body: Any, *, stream: bool = False, **kwargs: Any) -> Reply:
        return await self.api.send(
            "POST",
            f"/job-done/{self.name}/{job_id}?gpu=NVIDIA+A40&isStream={str(stream).lower()}",
            data=body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"},
            **kwargs,
        )

    async def chunk(self, job_id: str, value: Any) -> Reply:
        body = json.dumps({"output": value}).encode()
        return await self.api.send("POST", f"/job-stream/{self.name}/{job_id}?gpu=A&isStream=false", data=body)

    async def ping(self, *job_ids: str) -> Reply:
        return await self.api.get(f"/ping/{self.name}?gpu=A&job_id={'%2C'.join(job_ids)}&runpod_version=1.12.0")

    async def stops(self) -> list[str]:
        reply = await self.api.get(f"/job-stop/{self.name}?gpu=A")
        return reply.json["jobsToStop"] if reply.status == 200 else []


class OurWorker:
    """A worker that speaks every extension."""

    def __init__(self, api: Api, name: str = "w-1") -> None:
        self.api = api
        self.name = name
        self.takes = 0

    def headers(self, **more: str) -> dict[str, str]:
        return {"X-Worker-Extensions": EXTENSIONS, **{key.replace("_", "-"): value for key, value in more.items()}}

    def token(self) -> str:
        self.takes += 1
        return f"{self.name}-{self.takes}"

    async def take(self, token: str = "") -> Any:
        headers = self.headers(X_Take_Id=token or self.token())
        reply = await self.api.get(f"/job-take/{self.name}?gpu=24", headers=headers)
        return reply.json if reply.status == 200 else None

    async def done(self, job: Any, body: Any, *, want: int | None = None, token: str = "", attempt: int = 0) -> Reply:
        headers = self.headers(X_Attempt=str(attempt or job["attempt"]))
        if want is not None:
            headers |= {"X-Take": str(want), "X-Take-Id": token or self.token()}
        return await self.api.post(f"/job-done/{self.name}/{job['id']}?isStream=false", body, headers=headers)

    async def chunks(self, job: Any, outputs: list[Any], index: int) -> Reply:
        headers = self.headers(X_Attempt=str(job["attempt"]))
        body = {"outputs": outputs, "index": index}
        return await self.api.post(f"/job-stream/{self.name}/{job['id']}?isStream=false", body, headers=headers)

    async def release(self, *, takes: list[str] | None = None, jobs: list[Any] | None = None) -> int:
        body = {"takes": takes or [], "jobs": jobs or []}
        return (await self.api.post(f"/job-return/{self.name}", body, headers=self.headers())).json["returned"]

    async def stops(self) -> list[str]:
        reply = await self.api.get(f"/job-stop/{self.name}", headers=self.headers())
        return reply.json["jobsToStop"] if reply.status == 200 else []


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    time: float = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@dataclass
class Running:
    """A served service."""

    server: Server
    stores: Stores
    api: Api
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def service(self) -> JobQueue:
        return self.server.queue

    def endpoint(self, name: str) -> Api:
        return Api(self.api.session, self.server.url, name)


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts services: `await serve(lease_s=1.0, ...)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(stores: Stores | None = None, now: Callable[[], float] | None = None, **given: Any) -> Running:
            settings = ServiceSettings(port=0, **given)
            stores = stores or open_stores(settings)
            clock: dict[str, Any] = {"now": now} if now else {}
            server = Server(settings, stores, **clock)
            await server.start()
            stack.push_async_callback(server.close)
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            return Running(server, stores, Api(session, server.url))

        yield start


@pytest.fixture
async def running(serve: Serve) -> Running:
    """A service in memory with default settings."""
    return await serve()


@pytest.fixture
def api(running: Running) -> Api:
    return running.api


@pytest.fixture
def plain(api: Api) -> PlainWorker:
    return PlainWorker(api)


@pytest.fixture
def ours(api: Api) -> OurWorker:
    return OurWorker(api)


@pytest.fixture
def workers() -> tuple[type[PlainWorker], type[OurWorker]]:
    """The two kinds of workers, to make more of them."""
    return PlainWorker, OurWorker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> JobQueue:
    """The use cases alone, in memory, with a clock that the test moves."""
    ids = iter(range(1_000_000))
    return JobQueue(NullJournal(), ServiceSettings(), now=clock, new_id=lambda: f"job-{next(ids)}")


Restart = Callable[[], Awaitable[JobQueue]]


@pytest.fixture
async def restart(clock: Clock, tmp_path: Path) -> AsyncIterator[Restart]:
    """Starts the service without HTTP on one database; each call closes the one before it."""
    journals: list[SqliteJournal] = []

    async def start() -> JobQueue:
        if journals:
            await journals.pop().close()
        journals.append(SqliteJournal(tmp_path / "restarted.sqlite"))
        return JobQueue(journals[0], ServiceSettings(), now=clock)

    yield start
    await journals[0].close()
