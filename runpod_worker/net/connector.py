"""The guard against requests to our own network (SSRF), as a connector of aiohttp."""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import Callable

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from runpod_worker.net.addresses import AddressRefused, check_any, check_public, is_public
from runpod_worker.net.background import run_in_daemon_thread

__all__ = ["AddressRefused", "check_url", "connector", "is_public", "refused"]

AddressCheck = Callable[[str], None]
"""Raises AddressRefused for an address that we must not connect to."""


def check_url(url: str) -> URL:
    """Parse the URL.

    Raises:
        ValueError: it is not an http or https URL with a host. The message does not repeat it: it may hold secrets.
    """
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        raise ValueError("expected a URL") from None
    if parsed.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(f"expected http:// or https:// with a host, got scheme {parsed.scheme!r}")
    return parsed


def connector(
    *,
    private: bool = False,
    limit: int = 100,
    resolver: AbstractResolver | None = None,
    check: AddressCheck = check_public,
) -> aiohttp.TCPConnector:
    """A connector for `aiohttp.ClientSession` that connects to public addresses only.

    A refusal arrives as the `aiohttp.ClientConnectorError` that `refused` recognises.

    Args:
        private: connect to every address, private ones too.
        limit: open connections; 0 means any number.
        resolver: resolves names, by default as the system does.
        check: raises AddressRefused for addresses that must not be connected to.
    """
    factory = functools.partial(_checked_socket, check_any if private else check)
    return aiohttp.TCPConnector(limit=limit, resolver=resolver, socket_factory=factory)


def refused(error: BaseException) -> bool:
    """Whether a request failed because the check refused every address of its host."""
    return isinstance(error, aiohttp.ClientConnectorError) and error.errno == errno.EACCES


class DaemonResolver(AbstractResolver):
    """Resolves each name in a daemon thread, so that a DNS server that does not answer delays no exit."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = functools.partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=0)
            for kind, _, proto, _, address in await run_in_daemon_thread(look_up)
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _checked_socket(
    check: AddressCheck,
    address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]],
) -> socket.socket:
    family, kind, proto, _, host_and_port = address
    check(str(host_and_port[0]))
    return socket.socket(family=family, type=kind, proto=proto)
