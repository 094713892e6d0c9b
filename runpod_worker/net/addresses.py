"""Which addresses we connect to on behalf of callers: public ones only, unless the operator allows all.

The check gets the address that the socket will connect to. So neither a disguised address passes, nor a name that
resolves to a public address first and to 127.0.0.1 later (DNS rebinding).
"""

from __future__ import annotations

import errno
import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


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
    return all(part.is_global and not part.is_multicast for part in (ip, *_wrapped(ip)))


def check_public(address: str) -> None:
    """Refuse an address that is not public.

    Raises:
        AddressRefused: the address is private, local, reserved, or no address at all.
    """
    if not is_public(address):
        raise AddressRefused(address)


def check_any(address: str) -> None:
    """Accept every address."""


def _wrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if ip.version == 4:
        return []
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(ip.packed[-4:]))
    return [address for address in inner if address is not None]
