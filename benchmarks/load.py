"""A load generator: callers that repeat one request on kept-alive connections."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from typing import NamedTuple

BODY = b'{"input":{"x":1}}'
READY_TIMEOUT_S = 60.0


class Load(NamedTuple):
    """The result of one run."""

    requests_per_s: float
    p50_ms: float


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Caller(asyncio.Protocol):
    """One kept-alive connection. It repeats the request as soon as the reply is complete."""

    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        self._request = request
        self._until = until
        self._times = times
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._begin = 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport
        self._send()

    def _send(self) -> None:
        self._begin = time.perf_counter()
        if self._transport is not None:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = body[length:]
        now = time.perf_counter()
        self._times.append(now - self._begin)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def apply_load(port: int, path: str, callers: int, seconds: float) -> Load:
    """Repeat a POST with this many callers; RuntimeError if a reply is not 200."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
    request = head.encode() + b"\r\n\r\n" + BODY
    times: list[float] = []
    begin = time.perf_counter()
    loop = asyncio.get_running_loop()
    connections: list[Caller] = []
    for _ in range(callers):
        caller = Caller(request, begin + seconds, times)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]
        connections.append(caller)
    await asyncio.gather(*(caller.done for caller in connections))
    if errors := sum(caller.errors for caller in connections):
        raise RuntimeError(f"{errors} replies had another status than 200")
    return Load(len(times) / (time.perf_counter() - begin), 1000 * statistics.median(times))


async def until_ready(port: int, path: str) -> None:
    """Wait until a request succeeds."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            await apply_load(port, path, 1, 0.0)
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return
