"""Refuses requests that a page in somebody's browser may send without their knowledge.

Such a page can reach a service on loopback, by its address (CSRF) or by a name that it points there (DNS rebinding).
A browser always names the host that it wants and the origin of the page, and sends JSON only to that origin.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from runpod_worker.core.errors import ServiceRefusal

MAX_REMEMBERED = 1024
"""Verdicts about a host or an origin that are kept; the oldest is dropped."""

_SETTING = "RUNPOD_SERVICE_ALLOWED_HOSTS"
_PLATFORM_PROXY = ".proxy.runpod.net"
_DEFAULT_PORTS = (":80", ":443")


class SourceRefused(ServiceRefusal, status=403):
    """The request names a host or an origin that may not use this service."""


class WrongType(ServiceRefusal, status=415):
    """Content-Type: expected application/json. Send the header `Content-Type: application/json`."""


class Guard:
    """Checks where a request comes from.

    Args:
        allowed_hosts: names under which the service may be called, and whose pages may call it.
        reachable: other machines may call a service without keys, so IP addresses, names without a dot and names of
            the platform's proxy pass too: no page can point such a name at another address.
    """

    def __init__(self, allowed_hosts: Iterable[str] = (), *, reachable: bool = False) -> None:
        self._allowed = frozenset(map(host_name, allowed_hosts))
        self._reachable = reachable
        self._is_host_allowed = lru_cache(MAX_REMEMBERED)(self._check_host)
        self._is_origin_allowed = lru_cache(MAX_REMEMBERED)(self._check_origin)

    def check(self, method: str, headers: Mapping[str, str], *, has_key: bool) -> None:
        """Check the host and the origin. With a key, the host may have any name, and any page may read.

        Raises:
            SourceRefused: another host or origin; the message names the header and the setting.
        """
        host = headers.get("Host")
        if not has_key and host is not None and not self._is_host_allowed(host):
            raise SourceRefused(
                f"Host: expected localhost, a loopback address or a name in {_SETTING}, got {host[:200]!r}"
            )
        if has_key and method in ("GET", "HEAD"):
            return
        origin = headers.get("Origin")
        if origin is not None and not self._is_origin_allowed(origin, host or ""):
            raise SourceRefused(
                f"Origin: expected a page of this service or of a host in {_SETTING}, got {origin[:200]!r}"
            )
        if origin is None and headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            raise SourceRefused("Sec-Fetch-Site: expected same-origin or none: a page of another site sent this")

    def _check_host(self, host: str) -> bool:
        name = host_name(host)
        if is_loopback(name) or name in self._allowed:
            return True
        return self._reachable and (_is_address(name) or "." not in name or name.endswith(_PLATFORM_PROXY))

    def _check_origin(self, origin: str, host: str) -> bool:
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(netloc) and (_without_port(netloc) == _without_port(host) or host_name(netloc) in self._allowed)


def require_json(headers: Mapping[str, str]) -> None:
    """Check that a request with a body says that the body is JSON: other types a browser sends to any site.

    Raises:
        WrongType: another type, or none.
    """
    if headers.get("Content-Length", "0") == "0" and "Transfer-Encoding" not in headers:
        return
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongType


def host_name(host: str) -> str:
    """The name or address in a Host header or a URL's authority, without port, brackets and final dot."""
    host = host.strip().lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(authority: str) -> str:
    """The authority in lower case, without the port that its scheme has by default."""
    authority = authority.lower()
    return next((authority.removesuffix(port) for port in _DEFAULT_PORTS if authority.endswith(port)), authority)
