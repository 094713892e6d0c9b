"""The URL, key and proxy of requests, from `runpod_worker.api_key` and `runpod_worker.endpoint_url_base`."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import runpod_worker
from runpod_worker.core.errors import SettingsError

KEY_MISSING = (
    "no API key: set runpod_worker.api_key = '...' or the environment variable RUNPOD_API_KEY, or pass api_key='...'"
)


@dataclass(frozen=True, slots=True)
class Access:
    """The base URL (`https://host/v2`, without a slash at the end), the headers of every request, and the proxy."""

    base_url: str
    headers: dict[str, str]
    proxy: str | None = None
    key: str | None = field(default=None, repr=False)


def access(api_key: str | None = None) -> Access:
    """Return the access to the job service, with `api_key` or the module's key.

    Raises:
        SettingsError: the key or URL is malformed, or the key is missing for a service on another machine.
    """
    base_url = require_url(runpod_worker.endpoint_url_base)
    headers = {"Content-Type": "application/json", "User-Agent": "runpod-worker"}
    key = api_key if api_key is not None else runpod_worker.api_key
    if key:
        key = _require_key(key)
        headers["Authorization"] = f"Bearer {key}"
    elif not _is_loopback(base_url):  # our service needs no keys on loopback
        raise SettingsError(KEY_MISSING)
    return Access(base_url, headers, proxy_for(base_url), key or None)


def proxy_for(base_url: str) -> str | None:
    """Return the system's proxy for this URL (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), or None.

    Raises:
        SettingsError: the proxy is not an HTTP URL.
    """
    parts = urlsplit(base_url)
    proxy = None if _is_loopback(base_url) else getproxies().get(parts.scheme)
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if urlsplit(proxy).scheme != "http" or not urlsplit(proxy).hostname:
        raise SettingsError(f"{parts.scheme.upper()}_PROXY: expected http://host[:port]")
    return proxy


def require_url(url: object) -> str:
    """Return the base URL without a slash at its end."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"endpoint_url_base: expected http(s)://host[:port]/v2, got {url!r} ({type(url).__name__})")
    return parts.geturl().rstrip("/")


def require_id(value: object, what: str) -> str:
    """Return an endpoint's or job's id."""
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{what}: expected a non-empty string, got {value!r} ({type(value).__name__})")
    return value


def _require_key(key: object) -> str:
    if not isinstance(key, str):
        raise SettingsError(f"api_key: expected a string, got {type(key).__name__}")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:  # never show the key
        raise SettingsError("api_key: expected printable ASCII without spaces; check that you copied all of it")
    return key


def _is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
