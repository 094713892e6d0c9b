"""HTTP: which request goes to which route, who may send it, and how errors are answered.

This sits on aiohttp's low-level server: a path is split once and looked up in one table, which costs a fifth of a
request less than a router of patterns.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from runpod_worker.core.errors import ServiceRefusal
from runpod_worker.log import log
from runpod_worker.service.http import auth
from runpod_worker.service.http.disconnect import Listener
from runpod_worker.service.http.requests import (
    Answer,
    Call,
    MethodNotAllowed,
    Route,
    RouteNotFound,
    envelope,
    error,
    is_gone,
    nothing,
    parse,
)

if TYPE_CHECKING:
    from runpod_worker.service.keys import Keys

_http_log = log.getChild("http")
_http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""aiohttp's own lines, without a traceback for each piece of garbage that is no HTTP; its sender is answered 400."""

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a GET of one exact path outside /v2."""


class App:
    """Answers requests.

    Args:
        routes: what follows `/v2/{endpoint}/`, by verb.
        keys: who may call; None is the same as no key.
        locked: while there is no key, refuse every call instead of answering it.
        pages: other paths, for people.
        body_limit: no request body is read further than this.
        root_endpoint: its routes are answered without `/v2/{endpoint}` too.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        keys: Keys | None,
        *,
        locked: bool = False,
        pages: Mapping[str, Page] | None = None,
        body_limit: int,
        root_endpoint: str | None = None,
    ) -> None:
        self._routes = routes
        self._root_endpoint = root_endpoint
        self._keys = keys
        self._locked = locked
        self._pages = pages or {}
        self._body_limit = body_limit

    def server(self) -> Listener:
        """An aiohttp server of this app, for a runner."""
        handle = cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", self.handle)
        return Listener(
            handle,
            request_factory=self._request,
            access_log=None,
            logger=_http_log,
            auto_decompress=False,  # JSON comes as it is; a few bytes must not become gigabytes
        )

    async def handle(self, request: web.BaseRequest) -> Answer:
        """The reply, whatever happens: no traceback ever leaves the service."""
        try:
            return await self._answer(request)
        except ServiceRefusal as exc:
            _check_unsent(request)
            return envelope(exc)
        except ConnectionError:
            if is_gone(request):
                return nothing()  # to nobody: aiohttp notices and cleans up
            raise
        except Exception:
            error_id = uuid.uuid4().hex[:12]
            log.exception("request.failed", extra={"error_id": error_id, "path": request.path})
            _check_unsent(request)
            return error(500, f"an unexpected error; the service's log has it as {error_id}")

    async def _answer(self, request: web.BaseRequest) -> Answer:
        call = parse(request) or self._at_root(request)
        if call is None:
            return await self._page(request)
        route = self._routes.get(call.verb)
        if route is None or not route.fits(call.rest) or not call.endpoint:
            raise RouteNotFound
        try:
            if request.method not in route.methods:
                wanted = " or ".join(sorted(route.methods))
                raise MethodNotAllowed(f"{call.verb}: expected {wanted}, got {request.method}")
            self._authorize(call, route)
            return await route.handle(call)
        except ServiceRefusal as exc:
            _check_unsent(request)
            return route.refusal(exc)

    def _at_root(self, request: web.BaseRequest) -> Call | None:
        """The call of `/run` and the like, and of `/{endpoint}/realtime`, for the endpoint that has the root."""
        endpoint = self._root_endpoint
        if endpoint is None:
            return None
        verb, *rest = request.path.strip("/").split("/")
        if [verb, *rest] == [endpoint, "realtime"]:
            verb, rest = "runsync", []
        return Call(request, endpoint, verb, tuple(rest), request.query) if verb in self._routes else None

    def _authorize(self, call: Call, route: Route) -> None:
        if call.request.method not in route.public:
            auth.check(self._keys, call.header("Authorization"), call.endpoint, locked=self._locked)

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if page is None:
            raise RouteNotFound
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{request.path}: expected GET, got {request.method}")
        return await page(request)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=self._body_limit)


def _check_unsent(request: web.BaseRequest) -> None:
    if request.writer.output_size > 0:
        raise ConnectionResetError("the reply has begun already; closing is the only honest end")
