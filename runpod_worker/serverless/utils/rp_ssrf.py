"""Fetch what a caller names, from public addresses only (protocol C.9): the SDK's names for `worker.download`."""

from __future__ import annotations

import http.client
from contextlib import AbstractContextManager

from runpod_worker.config import download_settings
from runpod_worker.core.errors import DownloadFailed
from runpod_worker.core.errors import DownloadRefused as SSRFError
from runpod_worker.net.download import HEADERS, guard, opened, parts_of

__all__ = ["DownloadFailed", "SSRFError", "max_download_bytes", "parts_of", "safe_get"]


def max_download_bytes() -> int:
    """Most bytes of one download."""
    return download_settings().max_bytes


def safe_get(
    url: str, *, timeout: float, headers: dict[str, str] | None = None
) -> AbstractContextManager[http.client.HTTPResponse]:
    """Open a GET of the URL, after redirects.

    Raises:
        SSRFError: it is no http(s) URL, or leads to an address that is not public.
        OSError: it cannot be reached (DownloadFailed: the server answers with an error).
    """
    return opened(url, check=guard(private=download_settings().private), timeout_s=timeout, headers=headers or HEADERS)
