"""A scripted job service over real HTTP, and both clients to call it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web

import runpod_worker
from runpod_worker import AsyncioEndpoint, Endpoint
from runpod_worker.client.calls import Calls
from runpod_worker.client.exchange import Flow, Pause, Reply, Request

WAIT_S = 20.0


@dataclass(slots=True, kw_only=True)
class Answer:
    """A scripted reply. It waits for the event `release`; with `drop` it closes the connection instead."""

    status: int = 200
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    release: threading.Event | None = None
    drop: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class ScriptedService:
    """Answers each route with its scripted replies in turn, and repeats the last."""

    answer = Answer

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.url = ""
        self._scripts: dict[tuple[str, str], deque[Answer]] = defaultdict(deque)
        self._arrived = threading.Condition()

    def on(self, route: str, *answers: Answer | dict[str, Any] | list[Any]) -> None:
        method, path = route.split(" ")
        script = self._scripts[method, f"/v2/{path}"]
        script.extend(answer if isinstance(answer, Answer) else Answer(json=answer) for answer in answers)

    def paths(self) -> list[str]:
        return [f"{seen.method} {seen.path.removeprefix('/v2/')}" for seen in self.seen]

    def await_requests(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.seen) >= count, WAIT_S), self.paths()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        with self._arrived:
            self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
            self._arrived.notify_all()
        script = self._scripts.get((request.method, request.path))
        if not script:
            return web.json_response({"status": 404, "title": "Not Found", "detail": "no such route"}, status=404)
        answer = script.popleft() if len(script) > 1 else script[0]
        if answer.release is not None:
            await asyncio.to_thread(answer.release.wait, WAIT_S)
        if answer.drop:
            assert request.transport is not None
            request.transport.close()
        payload = msgspec.json.encode(answer.json) if answer.body is None else answer.body
        return web.Response(
            status=answer.status, body=payload, headers={"Content-Type": "application/json"} | answer.headers
        )

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert isinstance(site._server, asyncio.Server)
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v2"
        ready.set()
        await stop.wait()
        await runner.cleanup()


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    scripted, ready = ScriptedService(), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(scripted.serve(ready, stop)))
    thread.start()
    assert ready.wait(WAIT_S)
    yield scripted
    loop.call_soon_threadsafe(stop.set)
    thread.join(WAIT_S)
    loop.close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNPOD_API_KEY", "RUNPOD_ENDPOINT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def base_url(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the client to the scripted service by assigning the names of the module, as programs do."""
    monkeypatch.setitem(vars(runpod_worker), "endpoint_url_base", service.url)
    monkeypatch.setitem(vars(runpod_worker), "api_key", "secret-key")
    return service.url


class Awaited:
    """Calls the asyncio client without await: runs its coroutines, and wraps its streams and jobs."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self.target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        return (lambda *given, **named: self._settled(value(*given, **named))) if callable(value) else value

    def _settled(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._settled(self._runner.run(result))
        if inspect.isasyncgen(result):
            return self._pulled(result)
        return Awaited(result, self._runner) if isinstance(result, runpod_worker.AsyncioJob) else result

    def _pulled(self, stream: Any) -> Iterator[Any]:
        async def pull() -> Any:
            return await anext(stream)

        while True:
            try:
                piece = self._runner.run(pull())
            except StopAsyncIteration:
                return
            yield piece


MakeEndpoint = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def make_endpoint(request: pytest.FixtureRequest, base_url: str) -> Iterator[MakeEndpoint]:
    """Make an endpoint of either client; both are called the same way."""
    if request.param == "blocking":
        made: list[Endpoint] = []

        def make(endpoint_id: str = "ep", **options: Any) -> Endpoint:
            made.append(Endpoint(endpoint_id, **options))
            return made[-1]

        yield make
        for endpoint in made:
            endpoint.rp_client.close()
        return
    with asyncio.Runner() as runner:
        awaited: list[Awaited] = []

        def make_awaited(endpoint_id: str = "ep", **options: Any) -> Awaited:
            awaited.append(Awaited(AsyncioEndpoint(endpoint_id, **options), runner))
            return awaited[-1]

        yield make_awaited
        for awaited_endpoint in awaited:
            awaited_endpoint.close()


@pytest.fixture
def endpoint(make_endpoint: MakeEndpoint) -> Any:
    return make_endpoint()


class FakeTransport:
    """Performs the client's steps without I/O, with a manual clock and prepared replies."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.requests: list[Request] = []
        self.pauses: list[float] = []
        self.calls = Calls(now=lambda: self.time, delay=lambda failures: float(failures))
        self._replies: deque[tuple[float, Reply | Exception]] = deque()

    def reply(self, json: Any = None, *, status: int = 200, after: float = 0.0, **headers: str) -> None:
        body = json if isinstance(json, bytes) else msgspec.json.encode(json)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._replies.append((after, Reply(status, body, named)))

    def fail(self, error: Exception, *, after: float = 0.0) -> None:
        self._replies.append((after, error))

    def forget(self) -> None:
        """Drop the oldest reply; the last reply repeats without end."""
        self._replies.popleft()

    def perform(self, flow: Flow[Any]) -> Any:
        result: Reply | Exception | None = None
        while True:
            try:
                step = flow.throw(result) if isinstance(result, Exception) else flow.send(result)
            except StopIteration as end:
                return end.value
            if isinstance(step, Pause):
                self._paused(step)
                result = None
            else:
                result = self._replied(step)

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path.partition('?')[0]}" for request in self.requests]

    def _paused(self, step: Pause) -> None:
        self.pauses.append(step.seconds)
        self.time += step.seconds

    def _replied(self, request: Request) -> Reply | Exception:
        self.requests.append(request)
        after, reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        self.time += after
        return reply


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()
