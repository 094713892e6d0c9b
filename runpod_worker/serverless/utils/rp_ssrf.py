"""Fetch what a caller names, from public addresses only (protocol C.9).

Every address is checked when it is connected to, redirects included; the name is not looked up again in between.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from runpod_worker.config import sdk_settings
from runpod_worker.net import AddressRefused, check_public

MAX_REDIRECTS = 5
PART_BYTES = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)


class SSRFError(ValueError):
    """The URL leads to where it must not, or to more than is taken."""


class DownloadFailed(OSError):
    """The server did not give the file."""


def max_download_bytes() -> int:
    """Most bytes of one download."""
    return sdk_settings().max_download_bytes


@contextmanager
def safe_get(url: str, *, timeout: float, headers: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """Open a GET of the URL, after redirects.

    Raises:
        SSRFError: it is no http(s) URL, or leads to an address that is not public.
        OSError: it cannot be reached (DownloadFailed: the server answers with an error).
    """
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        with closing(_connection(parts, timeout)) as connection:
            try:
                connection.request("GET", _target(parts), headers=headers or {})
                response = connection.getresponse()
            except AddressRefused as error:
                raise SSRFError(f"the URL leads to an address that is not public: {error.strerror}") from error
            except http.client.HTTPException as error:
                raise DownloadFailed(f"{type(error).__name__}: {error}") from error
            if response.status in _REDIRECTS and response.headers["Location"]:
                url = urljoin(url, response.headers["Location"])
                continue
            if response.status >= 400:
                raise DownloadFailed(f"the server answers {response.status} {response.reason}")
            yield response
            return
    raise SSRFError(f"more than {MAX_REDIRECTS} redirects")


def parts_of(response: http.client.HTTPResponse, most_bytes: int) -> Iterator[bytes]:
    """The body, part by part.

    Raises:
        SSRFError: it is longer than `most_bytes`.
        DownloadFailed: it ends before its end.
    """
    total = 0
    try:
        while part := response.read(PART_BYTES):
            total += len(part)
            if total > most_bytes:
                raise SSRFError(f"the file is larger than {most_bytes} bytes (RUNPOD_MAX_DOWNLOAD_BYTES)")
            yield part
    except http.client.HTTPException as error:
        raise DownloadFailed(f"the connection ended within the file: {type(error).__name__}") from error


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SSRFError(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SSRFError(f"expected an http:// or https:// URL with a host, got scheme {parts.scheme!r}")
    return parts


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection: Any = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    connection._create_connection = _guarded  # the seam that http.client has for exactly this
    return connection  # type: ignore[no-any-return]


def _guarded(address: tuple[str, int], timeout: float, source_address: Any = None) -> socket.socket:
    """Connect to the first address of the host that answers and may be called."""
    private = sdk_settings().private_downloads
    last: OSError = OSError(f"{address[0]} has no address")
    for family, kind, proto, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        if not private:
            check_public(str(place[0]))
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(timeout)
            sock.connect(place)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last
