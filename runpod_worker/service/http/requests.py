"""Requests taken apart and replies put together, for the routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.helpers import rfc822_formatted_time

from runpod_worker.core.errors import BadRequest, ServiceRefusal, TooLarge
from runpod_worker.service.http import wire

JSON = "application/json"
_JSON_HEAD = b"Content-Type: application/json\r\n"
_JOINED_BYTES = 16 * 1024
"""A body below this is copied behind its headers: one buffer is sent faster than two."""

_NO_QUERY: Mapping[str, str] = {}
_ENDPOINT = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


class MethodNotAllowed(ServiceRefusal):
    """This route does not take this method."""

    status = 405


class RouteNotFound(ServiceRefusal):
    """There is nothing here."""

    status = 404


class Call(msgspec.Struct, frozen=True):
    """A request to `/v2/{endpoint}/{verb}/{rest...}`."""

    request: web.BaseRequest
    endpoint: str
    verb: str
    rest: tuple[str, ...]
    query: Mapping[str, str]

    def alive(self) -> bool:
        """Whether the connection still stands."""
        return not is_gone(self.request)

    def header(self, name: str) -> str | None:
        """The header's value."""
        return self.request.headers.get(name)


Handler = Callable[[Call], Awaitable["Answer"]]


class Route:
    """A handler, the methods it answers, how many path segments follow its verb (None: at least one), and how it
    words a refusal."""

    __slots__ = ("handle", "methods", "public", "refusal", "segments")

    def __init__(
        self,
        handle: Handler,
        *methods: str,
        segments: int | None = 0,
        public: tuple[str, ...] = (),
        refusal: Callable[[ServiceRefusal], Reply] | None = None,
    ) -> None:
        self.handle = handle
        self.methods = frozenset(methods)
        self.segments = segments
        self.public = frozenset(public)
        """Methods that need no key: the URL itself is the capability."""
        self.refusal = refusal or envelope

    def fits(self, rest: tuple[str, ...]) -> bool:
        """Whether these segments may follow the verb."""
        return bool(rest) if self.segments is None else len(rest) == self.segments


def parse(request: web.BaseRequest) -> Call | None:
    """The call that the request makes, None if it is for none of an endpoint's routes.

    Old workers append `&name=value` to a URL without a query (protocol B.2): what follows the first `&` of the last
    segment is query too.
    """
    target = request.raw_path
    if not target.startswith("/"):  # absolute form, as proxies send it
        target = str(request.rel_url)
    path, _, query = target.partition("?")
    parts = path.rstrip("/").split("/")
    if len(parts) < 4 or parts[1] != "v2":  # "", "v2", endpoint, verb
        return None
    parts[-1], _, stray = parts[-1].partition("&")
    asked = _query("&".join(filter(None, (query, stray)))) if query or stray else _NO_QUERY
    if "%" in path:
        parts = [unquote(part) for part in parts]
    if not _ENDPOINT.fullmatch(parts[2]):
        return None
    return Call(request, parts[2], parts[3], tuple(parts[4:]), asked)


@lru_cache(1024)
def _query(text: str) -> Mapping[str, str]:
    """The query's values. Workers send the same few all the time."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
    except ValueError as exc:
        raise BadRequest(f"query: {exc}") from exc


async def body(request: web.BaseRequest, limit: int) -> bytes:
    """The request's body.

    Raises:
        TooLarge: it has more than `limit` bytes.
    """
    if (request.content_length or 0) > limit:
        raise TooLarge.over(limit)
    await allow_body(request)
    try:
        read = await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise TooLarge.over(limit) from exc
    except web.RequestPayloadError as exc:
        raise BadRequest(f"body: cannot be read: {exc}") from exc
    if len(read) > limit:
        raise TooLarge.over(limit)
    return read


async def allow_body(request: web.BaseRequest) -> None:
    """Tell a client that asks first (curl does, with a large body) to go on and send it."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


class Reply:
    """A whole reply, written in one piece.

    It is to aiohttp what a `web.Response` is, for a tenth of the time: headers that never change are bytes already.
    """

    __slots__ = ("_content", "_head", "_request", "_sent", "keep_alive", "status")

    def __init__(self, status: int, head: bytes, content: bytes) -> None:
        self.status = status
        self.keep_alive: bool | None = None
        self._head = head
        self._content = content
        self._request: web.BaseRequest | None = None
        self._sent = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Remember whom to answer. aiohttp calls this and `write_eof` again after a route that has called them."""
        if not self._sent:
            self._request = request
            self.keep_alive = request.keep_alive

    async def write_eof(self) -> None:
        """Send it, once.

        Raises:
            ConnectionResetError: the other side is gone.
        """
        request, self._request = self._request, None
        if request is None:
            return
        self._sent = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the other side hung up before the reply was sent")
        content = b"" if request.method == "HEAD" else self._content
        length = b"" if self.status == 204 else b"Content-Length: %d\r\n" % len(self._content)
        date = b"Date: %s\r\n" % rfc822_formatted_time().encode()
        data = b"".join((_status_line(self.status), self._head, length, date, self._connection(request), b"\r\n"))
        request.writer.output_size += len(data) + len(content)
        if len(content) < _JOINED_BYTES:
            transport.write(data + content)
        else:
            transport.writelines((data, content))
            await request.writer.drain()

    def _connection(self, request: web.BaseRequest) -> bytes:
        if request.version >= HttpVersion11:
            return b"" if self.keep_alive else b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.keep_alive else b""


def is_gone(request: web.BaseRequest) -> bool:
    """Whether the other side has hung up."""
    transport = request.transport
    return transport is None or transport.is_closing()


Answer = web.StreamResponse | Reply
"""What a route gives back."""


@lru_cache(64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


def head(headers: Mapping[str, str]) -> bytes:
    """Headers as `reply` and `nothing` take them."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("utf-8", "surrogateescape")


def reply(content: bytes, more: bytes = b"") -> Reply:
    """200 with JSON."""
    return Reply(200, _JSON_HEAD + more, content)


def nothing(more: bytes = b"") -> Reply:
    """204: there is nothing to tell."""
    return Reply(204, more, b"")


def envelope(exc: ServiceRefusal) -> Reply:
    """The platform's error envelope."""
    return error(exc.status, str(exc))


def error(status: int, detail: str) -> Reply:
    """The error envelope."""
    return Reply(status, _JSON_HEAD, wire.error_view(status, HTTPStatus(status).phrase, detail))


async def held(
    call: Call,
    wait_s: float,
    keepalive_s: float,
    step: Callable[[float], Awaitable[bytes | None]],
    last: Callable[[], Awaitable[bytes]],
) -> Answer:
    """A reply that may take long: what `step(timeout)` gives as soon as it gives something, `last()` after `wait_s`.

    After `keepalive_s` without a byte a space goes out, which JSON ignores, so that nothing in between closes the
    connection.
    """
    first = await step(min(wait_s, keepalive_s))
    if first is not None or wait_s <= keepalive_s:
        return reply(first if first is not None else await last())
    response = web.StreamResponse(headers={"Content-Type": JSON})
    await response.prepare(call.request)
    left = wait_s - keepalive_s
    content = None
    while content is None and left > 0 and call.alive():
        await response.write(b" ")
        content = await step(min(left, keepalive_s))
        left -= keepalive_s
    await response.write(content if content is not None else await last())
    await response.write_eof()
    return response
