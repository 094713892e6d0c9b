"""HTTP/1.1 requests for the link, over kept-alive connections, with no more than the link needs.

Why not aiohttp's client: it used most of the agent's CPU for a job (220 us per no-op job with it, 120 with this), and
half of the agent's start. No job service needs cookies, redirects, proxies, compression or pipelining, so they are
missing here. httptools (llhttp) parses the replies.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from weakref import WeakSet

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from runpod_worker.core.errors import LinkDown

MAX_IDLE_S = 15.0
"""Close connections that were idle for longer: services close theirs some time after that."""

CONNECT_TIMEOUT_S = 10.0

MAX_UNSTREAMED_BYTES = 1024 * 1024
"""Send a larger body piece by piece. TLS copies each piece, so this saves memory. An early reply such as 413 ends the
upload."""

PIECE_BYTES = 256 * 1024

MAX_HEAD_BYTES = 64 * 1024
"""Refuse a reply whose head is larger."""

MAX_REPLY_BYTES = 2**30
"""Refuse a larger reply."""


class Reply(NamedTuple):
    """A whole reply. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends a request and reads the whole reply."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        """Return the reply, with any status.

        Raises:
            LinkDown: there was none within `timeout_s`.
        """

    def reset(self) -> None:
        """Close the connections now, those in use too. Later requests open new ones."""

    async def close(self) -> None:
        """Close the connections."""


class HttpTransport:
    """Opens one connection for each concurrent request, and keeps it for the next ones."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, deque[_Connection]] = {}
        self._connections: WeakSet[_Connection] = WeakSet()
        self._tls: ssl.SSLContext | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        scheme, _, address = url.partition("://")
        authority, _, target = address.partition("/")
        head = _head(method, authority, target, headers, body)
        origin = f"{scheme}://{authority}"
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._pop_idle(origin) or await self._connect(scheme, authority)
                reply = await connection.exchange(head, body)
        except TimeoutError as error:
            raise LinkDown(f"{method} {origin}: no reply within {timeout_s:g} s") from error
        except OSError as error:
            raise LinkDown(f"{method} {origin}: {str(error) or type(error).__name__}") from error
        if connection.reusable:
            connection.idle_since = self._loop.time()
            self._idle.setdefault(origin, deque()).append(connection)
        return reply

    def reset(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        self._idle.clear()

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    def _pop_idle(self, origin: str) -> _Connection | None:
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            if connection.reusable and self._loop.time() - connection.idle_since < MAX_IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self, scheme: str, authority: str) -> _Connection:
        secure = scheme == "https"
        if secure and self._tls is None:
            self._tls = ssl.create_default_context()
        address = urlsplit(f"//{authority}")
        port = address.port or (443 if secure else 80)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await self._loop.create_connection(
                    _Connection, address.hostname or "", port, ssl=self._tls if secure else None
                )
        except TimeoutError as error:
            raise ConnectionError(f"no connection within {CONNECT_TIMEOUT_S:g} s") from error
        self._connections.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """Carries one exchange at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._reader = _ReplyReader()
        self._open = False
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def reusable(self) -> bool:
        """Whether another exchange may follow."""
        return self._open and self._reader.keeps_alive

    async def exchange(self, head: bytes, body: bytes | None) -> Reply:
        """Send a request and wait for the whole reply. Raises OSError. Cancelling it closes the connection."""
        if self._transport is None or not self._open:
            raise ConnectionResetError("the connection was closed")
        self._reply = asyncio.get_running_loop().create_future()
        try:
            if body and len(body) > MAX_UNSTREAMED_BYTES:
                await self._upload(self._transport, head, body, self._reply)
            else:
                self._transport.writelines((head, body) if body else (head,))
            return await self._reply
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._reply = None

    async def _upload(
        self, transport: asyncio.Transport, head: bytes, body: bytes, reply: asyncio.Future[Reply]
    ) -> None:
        transport.write(head)
        unsent = memoryview(body)
        while unsent and not reply.done():
            transport.write(unsent[:PIECE_BYTES])
            unsent = unsent[PIECE_BYTES:]
            await self._drained.wait()
        if unsent:  # the service would read the next request on this connection as the end of this body
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
        if self._reply is None or self._reply.done():  # a reply to no request: do not trust this connection again
            self.abort()
            return
        try:
            reply = self._reader.feed(data)
        except (HttpParserError, HttpParserUpgrade, ValueError) as error:
            self._reply.set_exception(ConnectionError(f"the reply is not HTTP/1.1: {error.__context__ or error}"))
            self.abort()
            return
        if reply is not None:
            self._reply.set_result(reply)
            self._drained.set()  # stops an upload that waits for room

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        self._drained.set()
        if self._reply is None or self._reply.done():
            return
        reply = self._reader.end() if error is None else None
        if reply is not None:
            self._reply.set_result(reply)
        else:
            self._reply.set_exception(ConnectionResetError(f"the connection was cut: {error or 'no whole reply'}"))


class _ReplyReader:
    """Turns the bytes of one connection into replies. Raises HttpParserError or ValueError for any other protocol."""

    def __init__(self) -> None:
        self.keeps_alive = True
        self._parser = HttpResponseParser(self)  # calls the methods `on_*`
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._in_body = False
        self._bytes = 0
        self._reply: Reply | None = None

    def feed(self, data: bytes) -> Reply | None:
        """Return the reply once it is whole."""
        self._bytes += len(data)
        self._parser.feed_data(data)
        if self._reply is None:
            most = MAX_REPLY_BYTES if self._in_body else MAX_HEAD_BYTES
            if self._bytes > most:
                raise ValueError(f"{'a reply' if self._in_body else 'a head'} of more than {most} bytes")
            return None
        reply, self._reply, self._bytes = self._reply, None, 0
        return reply

    def end(self) -> Reply | None:
        """Return the reply, if it has no length and so ends where the connection ends."""
        chunked = "chunked" in self._headers.get("transfer-encoding", "").lower()
        if not self._in_body or chunked or "content-length" in self._headers:
            return None
        self.on_message_complete()
        return self._reply

    def on_message_begin(self) -> None:
        if self._reply is not None:
            raise ValueError("more bytes than the reply has")
        self._headers, self._body, self._in_body = {}, [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # else it is a trailer
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 100 Continue and the like come before the reply
            self.keeps_alive = self._parser.should_keep_alive()
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._reply = Reply(status, self._headers, body)


def _head(method: str, authority: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    length = f"Content-Length: {len(body or b'')}\r\n" if method != "GET" else ""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers):
        raise ValueError("a header with a line break in it")
    return f"{method} /{target} HTTP/1.1\r\nHost: {authority}\r\n{fields}{length}\r\n".encode("latin-1")
