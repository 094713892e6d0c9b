"""HTTP for `blocking`: persistent connections that any number of threads may share."""

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

MAX_IDLE_S = 15.0
"""A connection that was idle for longer is closed. Servers and NAT tables keep them much longer."""

MAX_IDLE = 64
"""Idle connections above this number are closed."""

READ_BYTES = 1 << 18


@dataclass(slots=True)
class _Idle:
    connection: HTTPConnection
    since: float


class Connections:
    """Sends requests to one base URL, each over a connection that no other request uses meanwhile."""

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
        if self._proxy is not None and self._tls is None:  # a proxy for plain HTTP needs whole URLs
            self._prefix = base_url
            self._headers |= _proxy_headers(self._proxy)
        self._idle: deque[_Idle] = deque()
        self._process = os.getpid()
        weakref.finalize(self, _close, self._idle)  # users may drop an endpoint without closing it

    def exchange(self, request: Request) -> Reply:
        """Send a request and return the whole reply.

        Raises:
            NotSent: the service cannot have acted on the request.
            NoReply: the service may have acted on it.
            LinkDown: the service's certificate is invalid, so another try does not help.
        """
        until = self._now() + request.timeout_s
        connection = self._pop_idle() or self._open(request.timeout_s)
        try:
            reply, keep = self._exchange(connection, request, until)
        except BaseException:  # after half an exchange, or Ctrl-C, the connection is unusable
            connection.close()
            raise
        if keep and len(self._idle) < MAX_IDLE:
            self._idle.append(_Idle(connection, self._now()))
        else:
            connection.close()
        return reply

    def close(self) -> None:
        """Close the idle connections."""
        _close(self._idle)

    def _pop_idle(self) -> HTTPConnection | None:
        if self._process != os.getpid():  # after a fork the connections are the parent's;
            self._process = os.getpid()  # closing our copies of the sockets does not affect them
            self.close()
        while True:
            try:
                idle = self._idle.pop()
            except IndexError:
                return None
            if self._now() - idle.since < MAX_IDLE_S and not _has_data(idle.connection):
                return idle.connection
            idle.connection.close()

    def _open(self, timeout_s: float) -> HTTPConnection:
        connection = self._make(timeout_s)
        where = f"{connection.host}:{connection.port}"
        try:
            connection.connect()
        except BaseException as error:
            connection.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise LinkDown(f"{where} cannot be trusted: {error.verify_message}") from error
            if isinstance(error, TimeoutError):
                raise NotSent(f"{where} did not accept the connection in time") from error
            if isinstance(error, OSError):
                raise NotSent(f"{where}: {error}") from error
            raise
        return connection

    def _make(self, timeout_s: float) -> HTTPConnection:
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
            body = _gunzip(body)
        return Reply(response.status, body, headers), not (response.will_close or unsent)

    def _send(self, connection: HTTPConnection, request: Request) -> OSError | None:
        """Return the error that cut the request short; a service that refuses a request early may still answer it."""
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
    with suppress(IndexError):  # another thread may pop the last
        while True:
            idle.pop().connection.close()


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _has_data(connection: HTTPConnection) -> bool:
    """Whether an idle connection has data. That means that the service closed or broke it."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _gunzip(body: bytes) -> bytes:
    try:
        return gzip.decompress(body)
    except (OSError, EOFError) as error:
        raise NoReply(f"the reply is not gzip, although its header claims so ({error})") from error
