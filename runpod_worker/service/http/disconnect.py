"""Who has hung up, told at once: a request whose work is worthless without its caller need not look again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

T = TypeVar("T")

_watched: dict[Any, asyncio.Event] = {}
"""An event for each connection whose end somebody waits for."""


class Listener(web.Server):
    """An aiohttp server that tells when a connection has ended."""

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        gone = _watched.get(handler)
        if gone is not None:
            gone.set()


async def unless_gone(request: web.BaseRequest, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None when the other side has hung up before, and `work` was cancelled for that."""
    connection = request.protocol
    gone = _watched[connection] = asyncio.Event()
    if request.transport is None or request.transport.is_closing():
        gone.set()
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone.wait())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        del _watched[connection]
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
