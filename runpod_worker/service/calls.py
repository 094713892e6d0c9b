"""Requests taken apart and replies put together, for the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from aiohttp import hdrs, web
from multidict import istr

from runpod_worker.core.errors import BadRequest, ServiceRefusal, TooLarge

from . import wire

JSON = "application/json"
_CONTENT_TYPE = istr("Content-Type")
_NO_QUERY: dict[str, str] = {}


class MethodNotAllowed(ServiceRefusal):
    """This route does not take this method."""

    status = 405


class RouteNotFound(ServiceRefusal):
    """There is nothing here."""

    status = 404


@dataclass(frozen=True, slots=True)
class Call:
    """A request to `/v2/{endpoint}/{verb}/{rest...}`."""

    request: web.BaseRequest
    endpoint: str
    verb: str
    rest: tuple[str, ...]
    query: dict[str, str]

    def alive(self) -> bool:
        """Whether the connection still stands."""
        transport = self.request.transport
        return transport is not None and not transport.is_closing()

    def header(self, name: str) -> str | None:
        """The header's value."""
        return self.request.headers.get(name)


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Route:
    """A handler, the methods it answers, and how many path segments follow its verb."""

    __slots__ = ("handle", "methods", "public", "segments")

    def __init__(self, handle: Handler, *methods: str, segments: int = 0, public: tuple[str, ...] = ()) -> None:
        self.handle = handle
        self.methods = frozenset(methods)
        self.segments = segments
        self.public = frozenset(public)
        """Methods that need no key: the URL itself is the capability."""


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
    return Call(request, parts[2], parts[3], tuple(parts[4:]), asked)


def _query(text: str) -> dict[str, str]:
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
    if len(read) > limit:
        raise TooLarge.over(limit)
    return read


async def allow_body(request: web.BaseRequest) -> None:
    """Tell a client that asks first (curl does, with a large body) to go on and send it."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def reply(content: bytes, headers: dict[str, str] | None = None) -> web.Response:
    """200 with JSON."""
    response = web.Response(body=content, headers=headers)
    response.headers[_CONTENT_TYPE] = JSON
    return response


def nothing(headers: dict[str, str] | None = None) -> web.Response:
    """204: there is nothing to tell."""
    return web.Response(status=204, headers=headers)


def refusal(exc: ServiceRefusal) -> web.Response:
    """The error envelope."""
    return error(exc.status, str(exc))


def error(status: int, detail: str) -> web.Response:
    """The error envelope."""
    content = wire.error_view(status, HTTPStatus(status).phrase, detail)
    return web.Response(body=content, status=status, content_type=JSON)


async def held(
    call: Call,
    wait_s: float,
    silence_s: float,
    step: Callable[[float], Awaitable[bytes | None]],
    last: Callable[[], Awaitable[bytes]],
) -> web.StreamResponse:
    """A reply that may take long: what `step(timeout)` gives as soon as it gives something, `last()` after `wait_s`.

    After `silence_s` without a byte a space goes out, which JSON ignores, so that nothing in between closes the
    connection.
    """
    first = await step(min(wait_s, silence_s))
    if first is not None or wait_s <= silence_s:
        return reply(first if first is not None else await last())
    response = web.StreamResponse(headers={"Content-Type": JSON})
    await response.prepare(call.request)
    left = wait_s - silence_s
    content = None
    while content is None and left > 0 and call.alive():
        await response.write(b" ")
        content = await step(min(left, silence_s))
        left -= silence_s
    await response.write(content if content is not None else await last())
    await response.write_eof()
    return response
