"""Downloads the URLs that a caller names, from public addresses only (protocol C.9).

The connector checks every address that a socket connects to, redirects included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from yarl import URL

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import DownloadFailed, DownloadRefused
from runpod_worker.net.connector import DaemonResolver, check_url, connector, refused

MAX_SILENCE_S = 30.0
"""Seconds. A server that sends nothing for longer has failed."""

MAX_TRIES = 3
PAUSE = Backoff(base_s=0.5, cap_s=5.0)
MAX_REDIRECTS = 5
PART_BYTES = 256 * 1024
HEADERS = {"User-Agent": "runpod-worker"}

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429)


async def download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    timeout_s: float,
    random: Callable[[], float],
    private: bool = False,
) -> None:
    """Write the content of the URL to the file. Tries transient failures (no connection, 5xx) again.

    Raises:
        DownloadRefused: the URL is not http or https, or leads to an address that is not public, or to too many bytes.
        DownloadFailed: the server does not deliver the file, or not in time.
        OSError: the file cannot be written.
    """
    try:
        async with asyncio.timeout(timeout_s):
            for tries in range(MAX_TRIES):
                try:
                    await _download_once(url, path, max_bytes, private=private)
                except DownloadFailed as error:
                    if not error.passing or tries + 1 == MAX_TRIES:
                        raise
                    await asyncio.sleep(PAUSE.delay(tries, random))
                else:
                    return
    except TimeoutError as error:
        raise DownloadFailed(f"it took longer than {timeout_s:g} s") from error


async def _download_once(url: str, path: Path, max_bytes: int, *, private: bool) -> None:
    async with open_url(url, private=private) as response:
        with path.open("wb") as file:
            async for part in read_parts(response, max_bytes):
                file.write(part)


@asynccontextmanager
async def open_url(
    url: str,
    *,
    private: bool = False,
    timeout_s: float = MAX_SILENCE_S,
    headers: Mapping[str, str] = HEADERS,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a GET and follow redirects. `timeout_s` limits each wait for the server.

    Raises:
        DownloadRefused: the URL is not http or https, or leads to an address that is not public.
        DownloadFailed: the server cannot be reached, or answers with an error.
    """
    session = aiohttp.ClientSession(
        connector=connector(private=private, limit=0, resolver=DaemonResolver()),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={**headers, "Accept-Encoding": "identity"},
    )
    async with session:
        for _ in range(MAX_REDIRECTS + 1):
            async with await _get(session, url) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    url = urljoin(url, location)
                    continue
                _check_status(response)
                yield response
                return
    raise DownloadRefused(f"more than {MAX_REDIRECTS} redirects")


async def read_parts(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body, part by part.

    Raises:
        DownloadRefused: the body is longer than `max_bytes`.
        DownloadFailed: the connection ends before the body does.
    """
    announced = response.content_length or 0
    _check_size(announced, max_bytes)
    size = 0
    try:
        async for part in response.content.iter_chunked(PART_BYTES):
            size += len(part)
            _check_size(size, max_bytes)
            yield part
    except (aiohttp.ClientError, OSError) as error:
        missing = f"{announced - size} bytes are missing" if announced > size else type(error).__name__
        raise DownloadFailed(f"the connection ended within the file: {missing}", passing=True) from error


async def _get(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    target = _quoted(url)
    try:
        return await session.get(target, allow_redirects=False)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _explain(error) from error


def _quoted(url: str) -> URL:
    """The URL as it goes to the server. Quotes only characters that are illegal in a URL, so signed URLs stay valid."""
    try:
        origin = check_url(url).origin()
        parts = urlsplit(url)
    except ValueError as error:
        raise DownloadRefused(str(error)) from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return URL(str(origin) + quote(path, safe="%/:=&?~#+!$,;'@()*[]"), encoded=True)


def _explain(error: Exception) -> Exception:
    """Our error for a failed request. Its text holds no URL, which may hold secrets."""
    if refused(error):
        address = f"{error.strerror} (RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS)"
        return DownloadRefused(f"the URL leads to an address that is not public: {address}")
    if isinstance(error, aiohttp.InvalidURL):
        return DownloadRefused("the server's address is not valid")
    lasting = isinstance(error, aiohttp.ClientConnectorCertificateError | ValueError)
    return DownloadFailed(_text_of(error), passing=not lasting)


def _text_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    elif not isinstance(error, OSError):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        transient = response.status >= 500 or response.status in _TRANSIENT
        raise DownloadFailed(f"the server answers {response.status} {response.reason}", passing=transient)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DownloadRefused(f"the file is larger than {max_bytes} bytes (RUNPOD_MAX_DOWNLOAD_BYTES)")
