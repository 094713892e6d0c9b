"""System calls that Windows lacks or names differently.

A worker needs a POSIX system: its two processes share a Unix socket. Everything else runs on Windows too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from runpod_worker.core.errors import SettingsError

try:
    import fcntl as _fcntl
except ImportError:
    fcntl: Any = None
else:
    fcntl = _fcntl

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))  # the second one on macOS
boot_time: Callable[[], float] = time.monotonic if _BOOT_CLOCK is None else partial(time.clock_gettime, _BOOT_CLOCK)
"""Seconds that no step of the wall clock changes. Unlike `time.monotonic` on Linux, they count while the machine is
suspended."""

MAX_FILES = 1_048_576
"""Open files that `raise_file_limit` asks for at most; a higher limit stays as it is."""

WINDOWS_LOCK_OFFSET = 2**30
"""On Windows other processes cannot read locked bytes, so lock a byte far behind the end of the file."""


def require_worker_support(command: str) -> None:
    """Refuse to start a worker where its processes cannot work together.

    Raises:
        SettingsError: this system lacks Unix sockets, process groups or file locks.
    """
    if fcntl is None or not hasattr(socket, "AF_UNIX") or not hasattr(os, "killpg"):
        raise SettingsError(
            f"{command} needs Unix sockets and process groups, which this system lacks: use Linux, macOS, WSL or "
            "Docker; to run the handler on this machine: runpod-worker test HANDLER"
        )


def lock_file(handle: int) -> None:
    """Lock an open file until it is closed or this process ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    msvcrt: Any = import_module("msvcrt")
    position = os.lseek(handle, 0, os.SEEK_CUR)
    try:
        os.lseek(handle, WINDOWS_LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(*error.args) from error
    finally:
        os.lseek(handle, position, os.SEEK_SET)


def lock_folder(folder: Path) -> int | None:
    """Return an open handle that holds the lock on the folder, None where folders cannot be locked (Windows).

    Raises:
        OSError: another process holds the lock, or this is no folder.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        lock_file(handle)
    except OSError:
        os.close(handle)
        raise
    return handle


def raise_file_limit() -> int:
    """Let this process open as many files as it may; returns how many that is, a guess on Windows."""
    try:
        resource: Any = import_module("resource")
    except ImportError:
        return 8192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, MAX_FILES) if hard != resource.RLIM_INFINITY else MAX_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_FILES if soft == resource.RLIM_INFINITY else int(soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a lower limit than it says
        return int(soft)
    return int(wanted)


def create_private(path: Path) -> None:
    """Create the file for this user alone, whatever the umask. Leaves a file that exists as it is, and unopened."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def make_private_folder(path: Path) -> None:
    """Create the folder, and those above it that are missing, for this user alone."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder survive a power cut. Windows writes them with the files."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def on_termination(callback: Callable[[], object]) -> None:
    """Let the running loop call `callback` at SIGTERM and SIGINT. Call it in the main thread."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
