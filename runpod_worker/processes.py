"""Finds and ends the processes that a process leaves behind. Needs Linux; elsewhere these functions find nothing.

A process that loses its parent becomes a child of the nearest ancestor that adopts orphans. So whoever adopts finds all
processes of a program that has died, those in sessions of their own too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CHILD_GRACE_S = 3.0
"""A process gets SIGTERM, and SIGKILL if it still runs after this time."""

KILL_S = 1.0
"""Do not wait longer for a killed process: it may be stuck in the kernel."""

PROC = Path("/proc")

_POLL_S = 0.02
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
_ENDED = "ZX"


class ProcessId(NamedTuple):
    """A process. Its number alone may belong to another process later."""

    pid: int
    started_at: int


Find = Callable[[], Collection[ProcessId]]


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def adopts_orphans() -> bool:
    """Whether this process adopts orphans."""
    adopts = ctypes.c_int(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return bool(adopts.value)


def wait_exit(pid: int) -> None:
    """Wait until this child has exited, and leave its exit code to others. Reap the orphans that exit meanwhile."""
    if sys.platform == "linux":
        while (exited := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) is not None and exited.si_pid != pid:
            _reap(exited.si_pid)


def descendants(root: int, *, but: Iterable[int] = ()) -> set[ProcessId]:
    """Return the running descendants of a process, without those in `but` and their descendants."""
    entries = list(_entries())
    children: dict[int, list[_Entry]] = {}
    for entry in entries:
        children.setdefault(entry.parent, []).append(entry)
    excluded, reached, waiting = set(but), set(), [root]
    while waiting:
        for entry in children.get(waiting.pop(), ()):
            if entry.id.pid not in excluded:
                waiting.append(entry.id.pid)
                reached.add(entry)
    return {entry.id for entry in reached if entry.state not in _ENDED}


def group(leader: int) -> set[ProcessId]:
    """Return the running processes of this process group, without its leader."""
    members = (entry for entry in _entries() if entry.group == leader and entry.id.pid != leader)
    return {entry.id for entry in members if entry.state not in _ENDED}


def running(processes: Iterable[ProcessId]) -> set[ProcessId]:
    """Return those that still run."""
    wanted = set(processes)
    return {entry.id for entry in _entries() if entry.id in wanted and entry.state not in _ENDED} if wanted else set()


def end(find: Find, grace_s: float = CHILD_GRACE_S) -> int:
    """End the processes that `find` returns, and those it returns meanwhile; return how many got a signal.

    Each gets SIGTERM. Those that still run after `grace_s` get SIGKILL.
    """
    signalled: set[ProcessId] = set()
    kill_at = time.monotonic() + grace_s
    while left := set(find()):
        is_late = time.monotonic() >= kill_at
        for process in left if is_late else left - signalled:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL if is_late else signal.SIGTERM)
        signalled |= left
        if time.monotonic() >= kill_at + KILL_S:
            break
        time.sleep(_POLL_S)
    return len(signalled)


def end_orphans(*, but: Collection[int] = (), grace_s: float = CHILD_GRACE_S) -> int:
    """End and reap everything that this process has adopted; return how many processes got a signal.

    `but`: children that are no orphans.
    """
    count = end(lambda: descendants(os.getpid(), but=but), grace_s)
    for entry in _entries():
        if entry.parent == os.getpid() and entry.state in _ENDED and entry.id.pid not in but:
            _reap(entry.id.pid)
    return count


class _Entry(NamedTuple):
    id: ProcessId
    state: str
    parent: int
    group: int


def _entries() -> Iterator[_Entry]:
    """Every process of this machine that /proc shows."""
    folders = PROC.iterdir() if sys.platform == "linux" else ()
    for folder in folders:
        if folder.name.isdigit():
            with suppress(OSError, IndexError):  # it has ended meanwhile
                # The name of the program, in parentheses, may contain anything.
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                entry_id = ProcessId(int(folder.name), int(fields[19]))
                yield _Entry(entry_id, fields[0].decode(), int(fields[1]), int(fields[2]))


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
