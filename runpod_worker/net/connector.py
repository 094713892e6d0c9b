"""The address guard of `runpod_worker.net` for aiohttp: what callers name is reached at public addresses only."""

from __future__ import annotations

import errno
import socket

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from runpod_worker.net.addresses import AddressRefused, check_public, is_public

__all__ = ["AddressRefused", "check_url", "connector", "is_public", "refused"]


def check_url(url: str) -> URL:
    """The URL, parsed.

    Raises:
        ValueError: it is not an http or https URL with a host. The message does not repeat it: it may hold secrets.
    """
    try:
        parsed = URL(url)
        host, _ = parsed.host, parsed.port
    except ValueError:
        raise ValueError("expected a URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ValueError(f"expected http:// or https:// with a host, got scheme {parsed.scheme!r}")
    return parsed


def connector(
    *, private: bool = False, limit: int = 100, resolver: AbstractResolver | None = None
) -> aiohttp.TCPConnector:
    """A connector for `aiohttp.ClientSession` that connects to public addresses only.

    A refusal arrives as `aiohttp.ClientConnectorError` whose `os_error` is, or names, `AddressRefused`.

    Args:
        private: connect to every address, private ones too.
        limit: connections open at once.
        resolver: how names become addresses, the system's way by default.
    """
    factory = None if private else _public_socket
    return aiohttp.TCPConnector(limit=limit, resolver=resolver, socket_factory=factory)


def refused(error: BaseException) -> bool:
    """Whether the error of a request means that every address of the host was refused."""
    return isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.EACCES


def _public_socket(
    addr: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]],
) -> socket.socket:
    family, kind, proto, _, address = addr
    check_public(str(address[0]))
    return socket.socket(family=family, type=kind, proto=proto)
