"""Sessions for the asyncio client, at the path of RunPod's SDK."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientSession, ClientTimeout, TCPConnector

__all__ = ["AsyncClientSession", "ClientSession"]

TIMEOUT = ClientTimeout(600)


def AsyncClientSession(**options: Any) -> ClientSession:  # noqa: N802 - the SDK's name
    """Return aiohttp's `ClientSession(**options)`, by default without a limit on connections.

    The session has no key; `AsyncioEndpoint` adds one to each request.
    """
    options.setdefault("timeout", TIMEOUT)
    if "connector" not in options:
        options["connector"] = TCPConnector(limit=0)
    return ClientSession(**options)
