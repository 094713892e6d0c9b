"""A request, over a socket or from this process, and the route that its path names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict

from runpod_worker.core.errors import BadRequest, ServiceRefusal, TooLarge
from runpod_worker.service.http.replies import Answer, Reply, render_refusal

T = TypeVar("T")

MAX_QUERY_FIELDS = 100
"""A query with more fields is refused."""

MAX_CACHED_QUERY_CHARS = 256
"""A longer query is parsed each time, so that the cache stays small."""

MAX_BODY_SILENCE_S = 30.0
"""A request is refused when no byte of its body arrives for this long."""

_NO_QUERY: Mapping[str, str] = {}
_ENDPOINT = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)

disconnects: dict[RequestHandler, asyncio.Event] = {}
"""For each connection on which a request waits: the event that is set when the connection ends."""


class SocketRequest(web.BaseRequest):
    """A request over HTTP."""

    @property
    def target(self) -> str:
        target = self.raw_path
        return target if target.startswith("/") else str(self.rel_url)  # absolute form, as proxies send it

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def is_gone(self) -> bool:
        transport = self.transport
        return transport is None or transport.is_closing()

    async def wait_gone(self) -> None:
        lost = disconnects[self.protocol] = asyncio.Event()
        try:
            if not self.is_gone:
                await lost.wait()
        finally:
            del disconnects[self.protocol]

    async def read_body(self, limit: int) -> bytes:
        await self._allow_body(limit)
        try:
            body = await self.read() if self.content.is_eof() else await self._join_pieces(limit)
        except web.HTTPRequestEntityTooLarge as exc:
            raise TooLarge.over(limit) from exc
        except web.RequestPayloadError as exc:
            raise BadRequest(f"body: cannot be read: {exc}") from exc
        except TimeoutError as exc:
            raise BadRequest(f"body: no byte arrived for {MAX_BODY_SILENCE_S:g} s") from exc
        if len(body) > limit:
            raise TooLarge.over(limit)
        return body

    async def body_pieces(self, limit: int) -> AsyncIterator[bytes]:
        await self._allow_body(limit)
        while not self.content.at_eof():
            async with asyncio.timeout(MAX_BODY_SILENCE_S):
                piece = await self.content.readany()
            yield piece

    async def _join_pieces(self, limit: int) -> bytes:
        body = bytearray()
        while not self.content.at_eof():
            async with asyncio.timeout(MAX_BODY_SILENCE_S):
                body += await self.content.readany()
            if len(body) > limit:
                raise TooLarge.over(limit)
        return bytes(body)

    async def _allow_body(self, limit: int) -> None:
        """Refuse a body that is too large. Answer `Expect: 100-continue`, which curl sends before a large body."""
        if (self.content_length or 0) > limit:
            raise TooLarge.over(limit)
        if self.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.writer.output_size = 0


class PlainRequest:
    """A request as a value, for calls inside this process. Set `gone` when its caller no longer waits."""

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        origin: str = "http://localhost",
    ) -> None:
        self.method = method
        self.target = target
        self.headers: Mapping[str, str] = CIMultiDict(headers or {})
        self.origin = origin
        self.gone = asyncio.Event()
        self._body = body

    @property
    def is_gone(self) -> bool:
        return self.gone.is_set()

    async def wait_gone(self) -> None:
        await self.gone.wait()

    async def read_body(self, limit: int) -> bytes:
        if len(self._body) > limit:
            raise TooLarge.over(limit)
        return self._body

    async def body_pieces(self, limit: int) -> AsyncIterator[bytes]:
        yield await self.read_body(limit)


Request = SocketRequest | PlainRequest
"""One request. `target` is path and query as sent, percent-encoded; `origin` is what the caller used as our address."""


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it as soon as the caller hangs up.

    Raises:
        ConnectionResetError: the caller has hung up.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.wait_gone())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ConnectionResetError("the caller hung up")
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


class MethodNotAllowed(ServiceRefusal, status=405):
    """This route does not take this method."""


class RouteNotFound(ServiceRefusal, status=404):
    """There is nothing here."""


class Call(msgspec.Struct, frozen=True):
    """A request to `/v2/{endpoint}/{verb}/{segments...}`."""

    request: Request
    endpoint: str
    verb: str
    segments: tuple[str, ...]
    query: Mapping[str, str]

    def is_alive(self) -> bool:
        """Whether the caller still waits."""
        return not self.request.is_gone

    def header(self, name: str) -> str | None:
        """The header's value."""
        return self.request.headers.get(name)


class Route(msgspec.Struct, frozen=True):
    """One route.

    Args:
        handle: answers a call.
        methods: the methods it answers.
        segments: how many path segments follow the verb; None for one or more.
        public: methods that need no key: the URL itself is the capability.
        any_type: a POST may have a body of any type, because RunPod's workers send JSON as a form.
        refusal: renders a refusal, by default in the platform's envelope.
    """

    handle: Callable[[Call], Awaitable[Answer]]
    methods: tuple[str, ...] = ("POST",)
    segments: int | None = 0
    public: tuple[str, ...] = ()
    any_type: bool = False
    refusal: Callable[[ServiceRefusal], Reply] = render_refusal

    def fits(self, segments: tuple[str, ...]) -> bool:
        """Whether these segments may follow the verb."""
        return bool(segments) if self.segments is None else len(segments) == self.segments


def parse(request: Request, target: str) -> Call | None:
    """The call that the request makes to this target, None if its path names no endpoint.

    Old workers append `&name=value` to a URL without a query (protocol B.2): what follows the first `&` of the last
    segment is query too.
    """
    path, _, query = target.partition("?")
    parts = path.rstrip("/").split("/")
    if len(parts) < 4 or parts[1] != "v2":  # "", "v2", endpoint, verb
        return None
    parts[-1], _, stray = parts[-1].partition("&")
    fields = _parse_query("&".join(filter(None, (query, stray)))) if query or stray else _NO_QUERY
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if not _ENDPOINT.fullmatch(parts[2]):
        return None
    return Call(request, parts[2], parts[3], tuple(parts[4:]), fields)


def _parse_query(text: str) -> Mapping[str, str]:
    """The query's fields. Workers send the same few all the time."""
    return (_cached_fields if len(text) <= MAX_CACHED_QUERY_CHARS else _fields)(text)


def _fields(text: str) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS))
    except ValueError as exc:
        raise BadRequest(f"query: {exc}") from exc


_cached_fields = lru_cache(1024)(_fields)
