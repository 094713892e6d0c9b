"""HTTP for the blocking face: connections that are kept open and may be used from any number of threads."""

from __future__ import annotations

import gzip
import os
import selectors
import socket
import ssl
import time
import weakref
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

from runpod_worker.core.errors import LinkDown

from .exchange import NoReply, NotSent, Reply, Request

KEEP_S = 15.0
"""Longest time an idle connection is used again: well under what servers and NAT tables keep."""

KEEP_MOST = 64
"""Most idle connections kept."""

READ_BYTES = 1 << 18


@dataclass(slots=True)
class _Idle:
    connection: HTTPConnection
    since: float


class Connections:
    """Sends requests to one base URL, each over a connection that nobody else uses meanwhile."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        proxy: str | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(base_url)
        self._now = now
        self._host, self._port, self._prefix = parts.hostname or "", parts.port, parts.path
        self._tls = _tls_context() if parts.scheme == "https" else None
        self._headers = {**headers, "Accept-Encoding": "gzip"}
        self._proxy = None if proxy is None else urlsplit(proxy)
        if self._proxy is not None and self._tls is None:  # a proxy of plain HTTP reads whole URLs
            self._prefix = base_url
            self._headers |= _proxy_headers(self._proxy)
        self._idle: deque[_Idle] = deque()
        self._process = os.getpid()
        weakref.finalize(self, _close, self._idle)  # an endpoint may be dropped without being closed

    def exchange(self, request: Request) -> Reply:
        """Send one request and return the whole reply.

        Raises:
            NotSent: the service cannot have acted on it.
            NoReply: it may have.
            LinkDown: the service is not who it should be; trying again does not help.
        """
        until = self._now() + request.timeout_s
        connection = self._reused() or self._opened(request.timeout_s)
        try:
            reply, keep = self._exchange(connection, request, until)
        except BaseException:  # half an exchange, also after Ctrl-C: never to be used again
            connection.close()
            raise
        if keep and len(self._idle) < KEEP_MOST:
            self._idle.append(_Idle(connection, self._now()))
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Close the connections that are idle."""
        _close(self._idle)

    def _reused(self) -> HTTPConnection | None:
        if self._process != os.getpid():  # after a fork the sockets are the parent's; closing these copies does not
            self._process = os.getpid()  # touch its connections
            self.close()
        while True:
            try:
                idle = self._idle.pop()
            except IndexError:
                return None
            if self._now() - idle.since < KEEP_S and not _readable(idle.connection):
                return idle.connection
            idle.connection.close()

    def _opened(self, timeout_s: float) -> HTTPConnection:
        connection = self._made(timeout_s)
        where = f"{connection.host}:{connection.port}"
        try:
            connection.connect()
        except BaseException as error:
            connection.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise LinkDown(f"{where} cannot be trusted: {error.verify_message}") from error
            if isinstance(error, TimeoutError):
                raise NotSent(f"{where} did not take the connection in time") from error
            if isinstance(error, OSError):
                raise NotSent(f"{where}: {error}") from error
            raise
        return connection

    def _made(self, timeout_s: float) -> HTTPConnection:
        proxy = self._proxy
        host, port = (self._host, self._port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
        if self._tls is None:
            return HTTPConnection(host, port, timeout=timeout_s)
        connection = HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)
        if proxy is not None:
            connection.set_tunnel(self._host, self._port or 443, _proxy_headers(proxy))
        return connection

    def _exchange(self, connection: HTTPConnection, request: Request, until: float) -> tuple[Reply, bool]:
        sock = connection.sock
        unsent = None
        try:
            sock.settimeout(self._left(until))
            unsent = self._send(connection, request)
            sock.settimeout(self._left(until))
            response = connection.getresponse()
            body = self._read(response, sock, until)
        except TimeoutError as error:
            raise NoReply(f"no reply within {request.timeout_s:.3g} s", timed_out=True) from error
        except (OSError, HTTPException) as error:
            kind = NotSent if unsent else NoReply
            raise kind(f"the connection broke ({unsent or error!r})") from error
        headers = {name.lower(): value for name, value in response.getheaders()}
        if headers.get("content-encoding") == "gzip":
            body = _unzipped(body)
        return Reply(response.status, body, headers), not (response.will_close or unsent)

    def _send(self, connection: HTTPConnection, request: Request) -> OSError | None:
        """The error that kept the request from leaving as a whole; a service that refuses early may still answer."""
        try:
            connection.request(request.method, f"{self._prefix}/{request.path}", request.body, self._headers)
        except TimeoutError:
            raise
        except OSError as error:
            return error
        return None

    def _read(self, response: HTTPResponse, sock: socket.socket, until: float) -> bytes:
        parts = []
        while part := response.read1(READ_BYTES):
            parts.append(part)
            if not response.isclosed():
                sock.settimeout(self._left(until))
        if response.length:
            raise NoReply(f"the connection broke {response.length} bytes before the end of the reply")
        response.close()
        return b"".join(parts)

    def _left(self, until: float) -> float:
        left = until - self._now()
        if left <= 0:
            raise TimeoutError
        return left


def _close(idle: deque[_Idle]) -> None:
    with suppress(IndexError):  # another thread may take the last one
        while True:
            idle.pop().connection.close()


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(words.encode()).decode()}"}


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _readable(connection: HTTPConnection) -> bool:
    """Whether an idle connection has something to say: then it is closed or broken."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _unzipped(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError) as error:
        raise NoReply(f"the reply is not the gzip it says it is ({error})") from error
