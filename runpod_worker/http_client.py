"""Sessions for the asyncio client, at the path of RunPod's SDK."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientResponseError, ClientSession, ClientTimeout, TCPConnector

__all__ = ["AsyncClientSession", "ClientSession", "TooManyRequests"]

TIMEOUT = ClientTimeout(600)


class TooManyRequests(ClientResponseError):
    """The SDK's error for status 429. This package waits and repeats the request instead."""


def AsyncClientSession(**options: Any) -> ClientSession:  # noqa: N802 - the SDK's name
    """Return aiohttp's `ClientSession(**options)`, by default without a limit on connections.

    The session has no key; `AsyncioEndpoint` adds one to each request.
    """
    options.setdefault("timeout", TIMEOUT)
    if "connector" not in options:
        options["connector"] = TCPConnector(limit=0)
    return ClientSession(**options)
