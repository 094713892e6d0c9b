"""HTTP requests for the link: aiohttp, set up once and asked for no more than the link needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from runpod_worker.core.errors import LinkDown

KEEP_ALIVE_S = 60.0
CONNECT_S = 10.0


class Reply(NamedTuple):
    """An answer, read to its end. Header names are compared without case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends a request and reads the whole answer."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        """Return the answer, whatever its status.

        Raises:
            LinkDown: there was none within `timeout_s`.
        """

    async def close(self) -> None:
        """Close the connections."""


class AiohttpTransport:
    """One aiohttp session: kept-alive connections without a limit, no cookies, no redirects."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Content-Type", "Accept-Encoding"),
        )
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=CIMultiDict(headers),
                data=body,
                timeout=self._timeout(timeout_s),
                allow_redirects=False,
            ) as reply:
                return Reply(reply.status, reply.headers, await reply.read())
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise LinkDown(f"{method} {URL(url).origin()}: {reason}") from error

    async def close(self) -> None:
        await self._session.close()

    def _timeout(self, seconds: float) -> aiohttp.ClientTimeout:
        known = self._timeouts.get(seconds)
        if known is None:
            known = self._timeouts[seconds] = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_S)
        return known
