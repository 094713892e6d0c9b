"""Which addresses may be called on behalf of others: public ones only, unless the operator says otherwise.

The check is made on the very address a socket is about to be connected to. A name that resolves to something harmless
when it is looked at and to 127.0.0.1 when it is used (DNS rebinding) gains nothing, nor does an address in disguise.
"""

from __future__ import annotations

import errno
import ipaddress

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


def check_public(address: str) -> None:
    """Refuse an address that is not public.

    Raises:
        AddressRefused: it is private, local, reserved or no address at all.
    """
    if not is_public(address):
        raise AddressRefused(address)


def _wrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    if ip.version == 4:
        return []
    inside = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inside.append(ipaddress.IPv4Address(ip.packed[-4:]))
    return [one for one in inside if one is not None]
