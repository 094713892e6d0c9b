"""Which addresses the job service may call on behalf of others: public ones only, unless the operator says otherwise.

The check is made on the very address a socket is about to be connected to. A name that resolves to something harmless
when it is looked at and to 127.0.0.1 when it is used (DNS rebinding) gains nothing, nor does an address in disguise.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """The address is not a public one."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not a public address")


def is_public(address: str) -> bool:
    """Whether the IP address belongs to the public internet, looking into IPv4 addresses wrapped in IPv6 ones."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(one.is_global and not one.is_multicast for one in (ip, *_wrapped(ip)))


def _wrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if ip.version == 4:
        return []
    inside = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inside.append(ipaddress.IPv4Address(ip.packed[-4:]))
    return [one for one in inside if one is not None]


def check_url(url: str) -> URL:
    """The URL, parsed.

    Raises:
        ValueError: it is not an http or https URL with a host. The message does not repeat it: it may hold secrets.
    """
    try:
        parsed = URL(url)
        host, _ = parsed.host, parsed.port
    except ValueError:
        raise ValueError("url: is not a URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ValueError(f"url: expected http:// or https:// with a host, got scheme {parsed.scheme!r}")
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
    if not is_public(str(address[0])):
        raise AddressRefused(str(address[0]))
    return socket.socket(family=family, type=kind, proto=proto)
