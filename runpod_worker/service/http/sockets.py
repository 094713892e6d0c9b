"""Serves an app over sockets: with `requests`, this file has every part of aiohttp's server that the service touches.

It sits on aiohttp's low-level server and writes whole replies by itself: a reply costs a tenth of a
`web.Response`. `tests/service/http/test_sockets.py` names every part of aiohttp that this needs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from runpod_worker.log import log
from runpod_worker.service.http.replies import Answer, FileReply, Reply, StreamReply
from runpod_worker.service.http.requests import SocketRequest, cancel_on_disconnect, disconnects

if TYPE_CHECKING:
    from runpod_worker.service.http.app import App

MAX_JOINED_BYTES = 16 * 1024
"""A larger body is not copied behind its headers: below this, one buffer is sent faster than two."""

MAX_LINE_BYTES = 64 * 1024
"""A longer request line is refused. RunPod's SDK lists every job that a worker holds in the URL of its heartbeat."""

HEAD_TIMEOUT_S = 10.0
"""A new connection that has not sent a whole request head by then is closed."""

_http_log = log.getChild("http")
_http_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
"""aiohttp's own lines, without a traceback for bytes that are not HTTP; their sender is answered 400."""


class DisconnectServer(web.Server):
    """Serves an app, and notices at once when a connection that is waited for ends.

    Args:
        app: answers the requests.
        body_limit: no request body is read further than this.
        max_connections: with more, the oldest one that has sent no request is closed, or else the longest idle one.
    """

    def __init__(self, app: App, *, body_limit: int, max_connections: int = sys.maxsize) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            cast("Any", self._answer),
            request_factory=cast("Any", partial(SocketRequest, loop=loop, client_max_size=body_limit)),
            access_log=None,
            logger=_http_log,
            max_line_size=MAX_LINE_BYTES,
            auto_decompress=False,  # bodies are not compressed, and a few bytes must not expand to gigabytes
        )
        self._app = app
        self._unread: dict[RequestHandler, StreamReader] = {}
        self._max_connections = max_connections
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}
        """Connections without a request yet, oldest first, and what closes each."""
        self._idle: dict[RequestHandler, None] = {}
        """Connections between two requests, the longest idle first."""

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._silent[handler] = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, transport.abort)
        if len(self.connections) > self._max_connections:
            victim = next(iter(self._idle if len(self._silent) == 1 else self._silent), handler)
            self._forget(victim)
            if victim.transport is not None:
                victim.transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._forget(handler)
        lost = disconnects.get(handler)
        if lost is not None:
            lost.set()
        unread = self._unread.pop(handler, None)
        if unread is not None:  # aiohttp would wait ten seconds for the rest of it, and so would `close`
            unread.feed_eof()

    def _forget(self, handler: RequestHandler) -> None:
        self._idle.pop(handler, None)
        timer = self._silent.pop(handler, None)
        if timer is not None:
            timer.cancel()

    async def _answer(self, request: SocketRequest) -> web.StreamResponse | _Sent:
        """Answer one request. aiohttp closes the connection of a request that ends with `_UNSENT`."""
        answer: Answer | None = None
        self._forget(request.protocol)
        try:
            answer = await self._app.handle(request)
            if not request.content.is_eof():
                self._unread[request.protocol] = request.content
            if type(answer) is Reply:
                if _write(request, answer):
                    await request.writer.drain()
                if request.keep_alive and not request.is_gone:
                    self._idle[request.protocol] = None
                return _SENT_KEEP if request.keep_alive else _SENT_CLOSE
            if isinstance(answer, StreamReply):
                return await _send_stream(request, answer)
        except ConnectionError:
            if isinstance(answer, Reply | StreamReply) and answer.on_lost is not None:
                await answer.on_lost()
            return _UNSENT
        return _File(cast("FileReply", answer).path, headers=cast("FileReply", answer).headers)


class _File(web.FileResponse):
    """Sends this file, and never a compressed file of the same name that lies beside it."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        headers = request.headers.copy()
        headers.popall(hdrs.ACCEPT_ENCODING, None)
        return await super().prepare(request.clone(headers=headers))


class _Sent:
    """Presents a reply that is already being sent as a response to aiohttp."""

    def __init__(self, *, keep_alive: bool, lost: bool = False) -> None:
        self.keep_alive = keep_alive
        self._lost = lost

    async def prepare(self, _request: web.BaseRequest) -> None:
        if self._lost:
            raise ConnectionResetError("the caller hung up")

    async def write_eof(self) -> None:
        """Do nothing, because the end was written with the body."""


_SENT_KEEP, _SENT_CLOSE = _Sent(keep_alive=True), _Sent(keep_alive=False)
_UNSENT = _Sent(keep_alive=False, lost=True)


def _write(request: SocketRequest, reply: Reply) -> bool:
    """Write the reply. Returns whether it is so large that it has to drain.

    Raises:
        ConnectionResetError: the caller has hung up.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the caller hung up before the reply was sent")
    content = b"" if request.method == "HEAD" else reply.content
    length = b"" if reply.status == 204 else b"Content-Length: %d\r\n" % len(reply.content)
    date = b"Date: %s\r\n" % rfc822_formatted_time().encode()
    head = b"".join((_status_line(reply.status), reply.head, length, date, _connection_header(request), b"\r\n"))
    if len(content) < MAX_JOINED_BYTES:
        transport.write(head + content)
        return False
    transport.writelines((head, content))
    return True


async def _send_stream(request: SocketRequest, reply: StreamReply) -> web.StreamResponse:
    response = web.StreamResponse(headers=reply.headers)
    async with aclosing(cast("Any", reply.pieces)):
        try:
            await response.prepare(request)
            await cancel_on_disconnect(request, _write_pieces(response, reply.pieces))
        except ConnectionError:
            raise
        except Exception as exc:  # the reply has begun: only closing the connection shows that it is broken
            log.exception("request.failed", extra={"path": request.path})
            raise ConnectionResetError("the reply broke") from exc
    return response


async def _write_pieces(response: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()


def _connection_header(request: SocketRequest) -> bytes:
    if request.version >= HttpVersion11:
        return b"" if request.keep_alive else b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if request.keep_alive else b""


@lru_cache(64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
