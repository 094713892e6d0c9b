"""HTTP/1.1 requests for the link, over kept-alive connections, and no more than the link needs.

Why not aiohttp's client: it was the larger part of what a job costs the agent (220 us of CPU per no-op job with it, 120
with this), and half of the agent's start. What is left out because no job service needs it: cookies, redirects,
proxies, compression, pipelining.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from runpod_worker.core.errors import LinkDown

IDLE_S = 15.0
"""A connection that was idle for longer is not used again: services close theirs some time after that."""

CONNECT_S = 10.0

JOINED = 64 * 1024
"""Bodies up to this size are sent together with their head, in one packet where it fits."""

STREAMED = 1024 * 1024
"""Larger bodies leave piece by piece, each when the one before has gone: what is on its way (and, with TLS, encrypted)
beside the body itself stays small, and an answer that comes before the end, such as 413, ends the upload."""

PIECE = 256 * 1024

MOST_HEAD = 64 * 1024

_BODILESS = frozenset({204, 304})


class Reply(NamedTuple):
    """An answer, read to its end. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends a request and reads the whole answer."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        """Return the answer, whatever its status.

        Raises:
            LinkDown: there was none within `timeout_s`.
        """

    async def close(self) -> None:
        """Close the connections."""


class HttpTransport:
    """As many connections as there are requests at once, kept for the next ones."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        scheme, _, rest = url.partition("://")
        authority, _, target = rest.partition("/")
        head = _head(method, authority, target, headers, body)
        origin = f"{scheme}://{authority}"
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._kept(origin) or await self._connect(scheme, authority)
                reply = await connection.exchange(head, body)
        except TimeoutError as error:
            raise LinkDown(f"{method} {origin}: no answer within {timeout_s:g} s") from error
        except OSError as error:
            raise LinkDown(f"{method} {origin}: {str(error) or type(error).__name__}") from error
        if connection.reusable:
            connection.idle_since = self._loop.time()
            self._idle.setdefault(origin, deque()).append(connection)
        return reply

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def _kept(self, origin: str) -> _Connection | None:
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            if connection.reusable and self._loop.time() - connection.idle_since < IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, scheme: str, authority: str) -> _Connection:
        host, port = _host_and_port(authority, 443 if scheme == "https" else 80)
        if scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        async with asyncio.timeout(CONNECT_S):
            _, connection = await self._loop.create_connection(
                _Connection, host, port, ssl=self._tls if scheme == "https" else None
            )
        return connection


class _Connection(asyncio.Protocol):
    """One exchange at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._reader = _Reader()
        self._open = False
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow."""
        return self._open and self._reader.keeps_alive

    async def exchange(self, head: bytes, body: bytes | None) -> Reply:
        """Send a request and wait for the whole answer. Raises OSError. Cancelling it closes the connection."""
        if self._transport is None or not self._open:
            raise ConnectionResetError("the connection was closed")
        self._reader = _Reader()
        self._answer = asyncio.get_running_loop().create_future()
        try:
            if body and len(body) > STREAMED:
                await self._upload(head, body, self._answer)
            elif body and len(body) > JOINED:
                self._transport.write(head)
                self._transport.write(body)
            else:
                self._transport.write(head + body if body else head)
            return await self._answer
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._answer = None

    async def _upload(self, head: bytes, body: bytes, answer: asyncio.Future[Reply]) -> None:
        assert self._transport is not None  # noqa: S101 - exchange has looked
        self._transport.write(head)
        rest = memoryview(body)
        while rest and not answer.done():
            self._transport.write(rest[:PIECE])
            rest = rest[PIECE:]
            await self._drained.wait()
        if rest:  # answered before the end: what followed on this connection would be taken for the body
            self.abort()

    def abort(self) -> None:
        """Close now."""
        self._open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's is a Transport
        self._open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nobody asked: this connection cannot be trusted any more
            self.abort()
            return
        try:
            reply = self._reader.feed(data)
        except ValueError as error:
            self._answer.set_exception(ConnectionError(f"the answer is not HTTP/1.1: {error}"))
            self.abort()
            return
        if reply is not None:
            self._answer.set_result(reply)
            self._drained.set()  # an upload that waits for room need not go on

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        self._drained.set()
        if self._answer is None or self._answer.done():
            return
        reply = self._reader.end() if error is None else None
        if reply is not None:
            self._answer.set_result(reply)
        else:
            self._answer.set_exception(ConnectionResetError(f"the connection was cut: {error or 'no whole answer'}"))


class _Reader:
    """Bytes in, one reply out. Raises ValueError for what is not HTTP/1.1."""

    def __init__(self) -> None:
        self.keeps_alive = True
        self._status = 0
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._missing: int | None = None
        """Bytes of the body that are still to come; None: the end of the connection ends it."""
        self._chunks: _Chunks | None = None
        self._in_head = True

    def feed(self, data: bytes) -> Reply | None:
        """The reply, when it is whole."""
        if self._in_head:
            rest = self._read_head(data)
            if rest is None:
                return None
            data = rest
        return self._read_body(data)

    def end(self) -> Reply | None:
        """The reply if the end of the connection completes it."""
        if self._in_head or self._missing is not None or self._chunks is not None:
            return None
        return Reply(self._status, self._headers, b"".join(self._parts))

    def _read_head(self, data: bytes) -> bytes | None:
        if self._parts:
            data = self._parts.pop() + data
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            if len(data) > MOST_HEAD:
                raise ValueError(f"a head of more than {MOST_HEAD} bytes")
            self._parts.append(data)
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError(f"it begins with {first[:40]!r}")
        self._status = int(first[9:12])
        if self._status < 200:  # 100 Continue and the like come before the answer
            return self._read_head(rest)
        for line in lines:
            name, _, value = line.partition(":")
            self._headers[name.lower()] = value.strip()
        self._in_head = False
        self._measure(http_1_0=first.startswith("HTTP/1.0"))
        return rest

    def _measure(self, *, http_1_0: bool) -> None:
        connection = self._headers.get("connection", "").lower()
        self.keeps_alive = "close" not in connection and (not http_1_0 or "keep-alive" in connection)
        length = self._headers.get("content-length")
        if self._status in _BODILESS:
            self._missing = 0
        elif "chunked" in self._headers.get("transfer-encoding", "").lower():
            self._chunks = _Chunks()
        elif length is not None:
            if not length.isdigit():
                raise ValueError(f"Content-Length: {length[:40]!r}")
            self._missing = int(length)
        else:
            self.keeps_alive = False

    def _read_body(self, data: bytes) -> Reply | None:
        if self._chunks is not None:
            body = self._chunks.feed(data)
            return None if body is None else Reply(self._status, self._headers, body)
        if data:
            self._parts.append(data)
        if self._missing is None:
            return None
        self._missing -= len(data)
        if self._missing > 0:
            return None
        if self._missing < 0:
            raise ValueError("more bytes than Content-Length says")
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return Reply(self._status, self._headers, body)


class _Chunks:
    """A body in Transfer-Encoding: chunked."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body: list[bytes] = []
        self._last = False

    def feed(self, data: bytes) -> bytes | None:
        """The body, when it is whole."""
        self._buffer += data
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                return None
            if self._last:
                if line_end == 0:
                    return b"".join(self._body)
                del self._buffer[: line_end + 2]  # a trailer
                continue
            size = int(bytes(self._buffer[:line_end]).partition(b";")[0], 16)
            if size == 0:
                self._last = True
                del self._buffer[: line_end + 2]
                continue
            start = line_end + 2
            if len(self._buffer) < start + size + 2:
                return None
            self._body.append(bytes(self._buffer[start : start + size]))
            del self._buffer[: start + size + 2]


def _head(method: str, authority: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    length = f"Content-Length: {len(body or b'')}\r\n" if method != "GET" else ""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers):
        raise ValueError("a header with a line break in it")
    return f"{method} /{target} HTTP/1.1\r\nHost: {authority}\r\n{fields}{length}\r\n".encode("latin-1")


def _host_and_port(authority: str, default: int) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, str(default)
    return host.strip("[]"), int(port)
