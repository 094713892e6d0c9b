"""The real job service and a link to it, in this process, so that the fake cannot differ from the service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from runpod_worker.config import worker_settings
from runpod_worker.core.errors import LinkDown, ServiceRefusal
from runpod_worker.service.http.replies import Answer, FileReply, Reply
from runpod_worker.service.http.requests import PlainRequest, Request
from runpod_worker.service.server import Server, Stores, open_stores
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.worker.link.http import HttpLink
from runpod_worker.worker.link.transport import Reply as TransportReply

ORIGIN = "http://in-process"


class ServiceReply(NamedTuple):
    """A whole reply. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class InProcessService:
    """A job service without a socket: `async with InProcessService() as service: ...`.

    Args:
        settings: the service's settings; by default jobs are in memory and files are not stored.
        endpoint: the endpoint of `request`.
        now: the service's clock in seconds since the epoch, such as a `ManualClock`; by default the real one.
        stores: the stores of the service; default: those of the settings.
    """

    def __init__(
        self,
        settings: ServiceSettings | None = None,
        *,
        endpoint: str = "ep",
        now: Callable[[], float] | None = None,
        stores: Stores | None = None,
    ) -> None:
        settings = settings or ServiceSettings()
        self.endpoint = endpoint
        self.server = Server(settings, stores or open_stores(settings), now=now)
        self._running = False

    async def __aenter__(self) -> InProcessService:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start the service's loops."""
        await self.server.start(listen=False)
        self._running = True

    async def close(self) -> None:
        """Answer every long poll and end the loops. Later requests fail, as to a service that is down."""
        self._running = False
        await self.server.close()

    async def handle(self, request: Request) -> Answer:
        """Answer a request. Raises ConnectionRefusedError unless the service runs."""
        if not self._running:
            raise ConnectionRefusedError("the service does not run")
        return await self.server.app.handle(request)

    async def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> ServiceReply:
        """Send a caller's request to the endpoint: `await service.request("POST", "/run", {"input": 1})`.

        `body` is sent as JSON, bytes as they are.
        """
        content = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        target = f"/v2/{self.endpoint}{path}"
        return await read_reply(await self.handle(PlainRequest(method, target, headers, content, origin=ORIGIN)))

    async def submit(self, source: Any, **fields: Any) -> str:
        """Submit a job with this input; returns its id. `fields` are further keys of the request, such as `policy`."""
        reply = await self.request("POST", "/run", {"input": source, **fields})
        if reply.status != 200:
            raise ServiceRefusal(f"{reply.status}: {reply.body.decode()}")
        return str(reply.json["id"])

    async def view(self, job_id: str) -> Any:
        """The job as its caller sees it."""
        return (await self.request("GET", f"/status/{job_id}")).json


class InProcessTransport:
    """A `Transport` that calls the service: the same requests and replies, without a socket.

    As over a socket, the service finishes a request whose caller has cancelled it, and then notices that the reply is
    lost.
    """

    def __init__(self, service: InProcessService) -> None:
        self._service = service
        self._unanswered: set[asyncio.Task[Any]] = set()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> TransportReply:
        request = PlainRequest(method, url.removeprefix(ORIGIN), headers, body or b"", origin=ORIGIN)
        answering = asyncio.create_task(self._service.handle(request))
        self._keep(answering)
        try:
            async with asyncio.timeout(timeout_s):
                return TransportReply(*await read_reply(await asyncio.shield(answering)))
        except (TimeoutError, asyncio.CancelledError) as error:
            request.gone.set()
            self._keep(asyncio.create_task(_report_lost(answering)))
            if isinstance(error, TimeoutError):
                raise LinkDown(f"{method} {url}: no reply within {timeout_s:g} s") from error
            raise
        except OSError as error:
            raise LinkDown(f"{method} {url}: {error}") from error

    def reset(self) -> None:
        """Do nothing, because no connection can break."""

    async def close(self) -> None:
        for task in self._unanswered:
            task.cancel()
        await asyncio.gather(*self._unanswered, return_exceptions=True)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.add(task)
        task.add_done_callback(self._unanswered.discard)


class InProcessLink(HttpLink):
    """The link of one worker to a service in this process.

    Args:
        service: the service, started.
        worker_id: the worker's id.
        settings: further settings of a worker, such as `api_key` or `gpu`.
    """

    def __init__(self, service: InProcessService, worker_id: str = "w-1", **settings: object) -> None:
        url = f"{ORIGIN}/v2/{service.endpoint}"
        super().__init__(
            worker_settings({"url": url, "worker_id": worker_id, **settings}, env={}), InProcessTransport(service)
        )


async def _report_lost(answering: asyncio.Task[Answer]) -> None:
    with contextlib.suppress(OSError):  # the service has noticed that its caller disconnected
        answer = await answering
        if not isinstance(answer, FileReply) and answer.on_lost is not None:
            await answer.on_lost()


async def read_reply(answer: Answer) -> ServiceReply:
    """The whole reply. A file is read, a stream is collected to its end."""
    if isinstance(answer, Reply):
        lines = [line.partition(": ") for line in answer.head.decode().split("\r\n") if line]
        return ServiceReply(answer.status, {name.lower(): value for name, _, value in lines}, answer.content)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if isinstance(answer, FileReply):
        return ServiceReply(200, headers, await asyncio.to_thread(answer.path.read_bytes))
    return ServiceReply(200, headers, b"".join([piece async for piece in answer.pieces]))
