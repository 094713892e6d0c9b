"""A request as the routes see it, whether it came over a socket or from this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from multidict import CIMultiDict

from runpod_worker.core.errors import TooLarge

T = TypeVar("T")


class Request(Protocol):
    """One request: `sockets.SocketRequest` over HTTP, `PlainRequest` in this process.

    `method` is in capitals. `target` is path and query as sent, percent-encoded. `headers` takes names in any case.
    `origin` is the scheme, host and port that the caller used. `is_gone`: the caller has hung up.
    """

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def origin(self) -> str: ...
    @property
    def is_gone(self) -> bool: ...

    async def wait_gone(self) -> None:
        """Return when the caller has hung up."""

    async def read_body(self, limit: int) -> bytes:
        """Return the whole body. Raises TooLarge if it has more than `limit` bytes."""

    def body_pieces(self, limit: int) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises TooLarge at once if it is known to have more than `limit` bytes."""


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
