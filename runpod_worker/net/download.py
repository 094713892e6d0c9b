"""Download what a caller names, from public addresses only (protocol C.9).

Every address is checked when it is connected to, redirects included; the name is not looked up again in between.
"""

from __future__ import annotations

import functools
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import DownloadFailed, DownloadRefused
from runpod_worker.net.addresses import AddressRefused, check_public
from runpod_worker.net.cancel import Line

SILENCE_S = 30.0
"""How long a server may say nothing."""

TRIES = 3
PAUSE = Backoff(base_s=0.5, cap_s=5.0)
MAX_REDIRECTS = 5
PART_BYTES = 1 << 20
HEADERS = {"User-Agent": "runpod-worker"}

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429)
_LASTING = (ssl.SSLCertVerificationError, http.client.InvalidURL, UnicodeError)

Check = Callable[[str], None]
"""Raises AddressRefused for an address that must not be called."""


def guard(*, private: bool) -> Check:
    """The check of addresses: public ones only, or all of them."""
    return _any_address if private else check_public


def _any_address(address: str) -> None:
    """All may be called."""


def download(
    url: str,
    path: Path,
    *,
    most_bytes: int,
    timeout_s: float,
    check: Check,
    line: Line,
    random: Callable[[], float],
) -> None:
    """Write what is at the URL into the file; what may pass (no connection, 5xx) is tried again.

    Raises:
        DownloadRefused: it is no http(s) URL, leads to an address that must not be called, or to too much.
        DownloadFailed: the server does not give it, not in time, or the line was cut.
        OSError: the file cannot be written.
    """
    clock = threading.Timer(timeout_s, line.cut, (f"it took longer than {timeout_s:g} s",))
    clock.daemon = True
    clock.start()
    try:
        _tried(url, path, most_bytes, check, line, random)
    finally:
        clock.cancel()


def _tried(url: str, path: Path, most_bytes: int, check: Check, line: Line, random: Callable[[], float]) -> None:
    for tries in range(TRIES):
        try:
            with opened(url, check=check, line=line) as response, path.open("wb") as file:
                for part in parts_of(response, most_bytes):
                    file.write(part)
            line.check()  # a cut connection may look like the end of the file
        except DownloadFailed as error:
            line.check()
            if not error.passing or tries + 1 == TRIES:
                raise
            line.wait(PAUSE.delay(tries, random))
        else:
            return


@contextmanager
def opened(
    url: str,
    *,
    check: Check,
    timeout_s: float = SILENCE_S,
    headers: Mapping[str, str] = HEADERS,
    line: Line | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Open a GET of the URL, after redirects.

    Raises:
        DownloadRefused: it is no http(s) URL, or leads to an address that must not be called.
        DownloadFailed: it cannot be reached, or the server answers with an error.
    """
    line = line or Line()
    try:
        for _ in range(MAX_REDIRECTS + 1):
            parts = _parsed(url)
            with closing(_connection(parts, timeout_s, check, line)) as connection:
                response = _answer(connection, parts, headers)
                location = response.headers["Location"]
                if response.status in _REDIRECTS and location:
                    url = urljoin(url, location)
                    continue
                _check_status(response)
                yield response
                return
    finally:
        line.drop()
    raise DownloadRefused(f"more than {MAX_REDIRECTS} redirects")


def parts_of(response: http.client.HTTPResponse, most_bytes: int) -> Iterator[bytes]:
    """The body, part by part.

    Raises:
        DownloadRefused: it is longer than `most_bytes`.
        DownloadFailed: it ends before its end.
    """
    total = 0
    _check_size(response.length or 0, most_bytes)
    while part := _part(response):
        total += len(part)
        _check_size(total, most_bytes)
        yield part
    if response.length:  # http.client takes the end of the connection for the end of the body
        raise _broken(f"{response.length} bytes are missing")


def _part(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(PART_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(type(error).__name__) from error


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise DownloadRefused(f"the file is larger than {most_bytes} bytes (RUNPOD_MAX_DOWNLOAD_BYTES)")


def _broken(how: str) -> DownloadFailed:
    return DownloadFailed(f"the connection ended within the file: {how}", passing=True)


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DownloadRefused(f"not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise DownloadRefused(f"expected an http:// or https:// URL with a host, got scheme {parts.scheme!r}")
    return parts


def _answer(
    connection: http.client.HTTPConnection, parts: SplitResult, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~#+!$,;'@()*[]")
    try:
        connection.request("GET", target, headers=dict(headers))
        return connection.getresponse()
    except AddressRefused as error:
        raise DownloadRefused(
            f"the URL leads to an address that is not public: {error.strerror} (RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS)"
        ) from error
    except DownloadFailed:
        raise
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        passing = not isinstance(error, _LASTING)
        raise DownloadFailed(f"{type(error).__name__}: {error}", passing=passing) from error


def _check_status(response: http.client.HTTPResponse) -> None:
    if response.status >= 300:
        passing = response.status >= 500 or response.status in _PASSING
        raise DownloadFailed(f"the server answers {response.status} {response.reason}", passing=passing)


def _connection(parts: SplitResult, timeout_s: float, check: Check, line: Line) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        connection: Any = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=_tls())
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    connect = functools.partial(_connected, check=check, line=line)
    connection._create_connection = connect  # the seam that http.client has for exactly this
    return connection  # type: ignore[no-any-return]


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _connected(
    address: tuple[str, int], timeout: float, source_address: Any = None, *, check: Check, line: Line
) -> socket.socket:
    """Connect to the first address of the host that answers and may be called."""
    last: OSError = OSError(f"{address[0]} has no address")
    for family, kind, proto, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        check(str(place[0]))
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(timeout)
            line.hold(sock)
            sock.connect(place)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last
