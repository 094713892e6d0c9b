"""Let malloc keep what it has, for processes that pass large bodies through.

By default glibc gives every block over 128 KB back to the system when it is freed, and asks for fresh pages for the
next one; with 1 MB outputs that was up to two thirds of the time for a job.
"""

from __future__ import annotations

import ctypes
import sys

MMAP_OVER = 32 * 2**20
"""The most that glibc allows."""

TRIM_OVER = 128 * 2**20
"""Free memory that is kept at most."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(MMAP_OVER), "MALLOC_TRIM_THRESHOLD_": str(TRIM_OVER)}
"""The same for a process that is started with it."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_pages() -> None:
    """Do so in this process, where malloc is glibc's."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none, and needs none
        mallopt(_M_MMAP_THRESHOLD, MMAP_OVER)
        mallopt(_M_TRIM_THRESHOLD, TRIM_OVER)
