"""Fetch what a caller names, from public addresses only (protocol C.9): the SDK's names for `net.download`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import aiohttp

from runpod_worker.config import download_settings
from runpod_worker.core.errors import DownloadFailed
from runpod_worker.core.errors import DownloadRefused as SSRFError
from runpod_worker.net.download import HEADERS, open_url, read_parts
from runpod_worker.net.loop import BackgroundLoop

__all__ = ["DownloadFailed", "SSRFError", "max_download_bytes", "parts_of", "safe_get"]

_background = BackgroundLoop()


def max_download_bytes() -> int:
    """Most bytes of one download."""
    return download_settings().max_bytes


@contextmanager
def safe_get(url: str, *, timeout: float, headers: dict[str, str] | None = None) -> Iterator[aiohttp.ClientResponse]:
    """Open a GET of the URL, after redirects; read the body with `parts_of`.

    Raises:
        SSRFError: the URL is not http or https, or leads to an address that is not public.
        OSError: the server cannot be reached (DownloadFailed: it answers with an error).
    """
    private, stack = download_settings().private, AsyncExitStack()
    opened = open_url(url, private=private, timeout_s=timeout, headers=headers or HEADERS)
    response = _background.run(stack.enter_async_context(opened))
    try:
        yield response
    finally:
        _background.run(stack.aclose())


def parts_of(response: aiohttp.ClientResponse, max_bytes: int) -> Iterator[bytes]:
    """Yield the body, part by part.

    Raises:
        SSRFError: the body is longer than `max_bytes`.
        DownloadFailed: the connection ends before the body does.
    """
    parts = read_parts(response, max_bytes)

    async def next_part() -> bytes:
        return await anext(parts, b"")

    while part := _background.run(next_part()):
        yield part
