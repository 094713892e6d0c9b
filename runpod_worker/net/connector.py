"""The guard against requests to our own network (SSRF), as a connector of aiohttp.

The check gets the address that the socket will connect to. So neither a disguised address passes, nor a name that
resolves to a public address first and to 127.0.0.1 later (DNS rebinding).
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
from typing import TypeGuard

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from runpod_worker.net.loop import run_in_daemon_thread

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's platform address, reachable only from inside
        "192.0.0.0/24",  # protocol assignments, such as Oracle's metadata at 192.0.0.192
        "192.88.99.0/24",  # relays of 6to4, withdrawn
        "::/96",  # an IPv4 address in IPv6, withdrawn
        "64:ff9b:1::/48",  # NAT64 inside a network
        "fec0::/10",  # site-local, withdrawn
        "100::/64",  # discard
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
    )
]
"""Networks that are not public, though some release of Python's `ipaddress` calls them global."""


class AddressRefused(OSError):
    """The address is not public."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not a public address")


def is_public(address: str) -> bool:
    """Whether the IP address belongs to the public internet; for an IPv6 address, the IPv4 address inside it too."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not any(_is_inside(part) for part in (ip, *_wrapped(ip)))


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
    *, private: bool = False, limit: int = 100, resolver: AbstractResolver | None = None
) -> aiohttp.TCPConnector:
    """A connector for `aiohttp.ClientSession` that connects to public addresses only.

    A refusal arrives as the `aiohttp.ClientConnectorError` that `refused` recognises.

    Args:
        private: connect to every address, private ones too.
        limit: open connections; 0 means any number.
        resolver: resolves names, by default as the system does.
    """
    return aiohttp.TCPConnector(limit=limit, resolver=resolver, socket_factory=None if private else _public_socket)


def refused(error: BaseException) -> TypeGuard[aiohttp.ClientConnectorError]:
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


def _public_socket(
    address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]],
) -> socket.socket:
    family, kind, proto, _, host_and_port = address
    if not is_public(str(host_and_port[0])):
        raise AddressRefused(str(host_and_port[0]))
    return socket.socket(family=family, type=kind, proto=proto)


def _is_inside(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not ip.is_global or ip.is_multicast or any(ip in network for network in _REFUSED)


def _wrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if ip.version == 4:
        return []
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(ip.packed[-4:]))
    return [address for address in inner if address is not None]
