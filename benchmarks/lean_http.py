"""A minimal HTTP/1.1 server, so that a benchmark measures the worker and not the service.

aiohttp's server needs 60 us for a worker's request, this one 15; on two cores the difference would be charged to the
worker. It supports only the requests that workers send: no pipelining, no chunked bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

SCRATCH = 256 * 1024


class Request(NamedTuple):
    """`body` is valid until the handler returns: the next request is read into the same memory."""

    path: str
    query: str
    head: bytes
    """In lower case."""
    body: memoryview

    def header(self, name: bytes) -> str:
        """The value of the header with this lower-case name, or an empty text."""
        return self.head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip().decode()


class Response(NamedTuple):
    status: int
    body: bytes = b""


Handler = Callable[[Request], Response | Awaitable[Response]]


class Server:
    """Answers each request with the response of `handle`, `delay` seconds later, and adds `headers` to all."""

    def __init__(self, handle: Handler, *, delay: float = 0.0, headers: str = "") -> None:
        self._handle = handle
        self._delay = delay
        self._headers = headers
        self._server: asyncio.Server | None = None
        self.connections: set[_Connection] = set()

    async def start(self, port: int = 0) -> int:
        """Listen on this port, by default on a free one, and return it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    async def close(self) -> None:
        """Refuse new connections and close all open ones."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def answer(self, connection: _Connection, request: Request) -> None:
        """Handle the request and send its response."""
        response = self._handle(request)
        if isinstance(response, Response):
            self._reply(connection, response)
            return
        task = asyncio.ensure_future(response)
        connection.waiting = task
        task.add_done_callback(lambda done: done.cancelled() or self._reply(connection, done.result()))

    def _reply(self, connection: _Connection, response: Response) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write, connection, response)
        else:
            self._write(connection, response)

    def _write(self, connection: _Connection, response: Response) -> None:
        if connection.transport.is_closing():  # the worker has exited
            return
        status, body = response
        fields = f"Content-Type: application/json\r\n{self._headers}Content-Length: {len(body)}\r\n"
        head = f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode()
        if len(body) > SCRATCH:
            connection.transport.writelines([head, body])
        else:
            connection.transport.write(head + body)


class _Connection(asyncio.BufferedProtocol):
    """One request at a time; its body is received into its final place."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.waiting: asyncio.Future[Response] | None = None
        self._server = server
        self._scratch = memoryview(bytearray(SCRATCH))
        self._large = memoryview(bytearray())
        self._end = 0
        self._body: memoryview | None = None
        self._request = ("", "", b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.connections.discard(self)
        if self.waiting is not None:
            self.waiting.cancel()

    def get_buffer(self, hint: int) -> memoryview:
        return (self._scratch if self._body is None else self._body)[self._end :]

    def buffer_updated(self, count: int) -> None:
        self._end += count
        if self._body is None:
            self._read_head()
        if self._body is not None and self._end == len(self._body):
            request = Request(*self._request, self._body)
            self._body, self._end = None, 0
            self._server.answer(self, request)

    def _read_head(self) -> None:
        data = bytes(self._scratch[: min(self._end, 16384)])
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        target = data[: data.find(b"\r\n")].split(b" ")[1].decode()
        path, _, query = target.partition("?")
        self._request = (path, query, data[:end].lower())
        self._body = self._room(int(Request(*self._request, self._large).header(b"content-length") or 0))
        arrived = self._end - end - 4
        self._body[:arrived] = self._scratch[end + 4 : self._end]
        self._end = arrived

    def _room(self, size: int) -> memoryview:
        if size > len(self._large):
            self._large = memoryview(bytearray(size))
        return self._large[:size]
