"""The process of an executor: starts it, watches it and kills it.

`Spawned` is a child of the agent and can be started again. `Parent` is the user's own process, which started the agent.
When either has exited, the processes that its handler started are ended too, so that their ports and devices are free.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Protocol

from runpod_worker import processes
from runpod_worker.log import log
from runpod_worker.worker.ipc import channel

TAIL_BYTES = 8192
TAIL_LINES = 40

TAIL_WAIT_S = 0.3
"""Do not wait longer for the last lines of a dead process, because another process may keep its standard error open."""


SCAN_INTERVAL_S = 1.0
"""The agent lists the processes of its parent this often, because they have other parents once that one is dead."""


class Process(Protocol):
    """One executor's process."""

    can_restart: bool
    """Whether `start` may be called again after the process has exited."""

    def start(self, on_exit: Callable[[], None]) -> socket.socket:
        """Start the process and return the agent's end of its channel. `on_exit` is called on the loop, once."""

    def kill(self) -> None:
        """Kill the process and its children."""

    async def exit_report(self, since: float) -> tuple[str, str]:
        """Return how it ended ("was killed by SIGSEGV"), and the last lines of its standard error from `since` on."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs, or if this process cannot know it."""


class Spawned:
    """Runs `python handler.py` as a child in its own process group, so that Ctrl-C reaches only the agent.

    In a process that adopts orphans, every child but this one counts as an orphan of the executor.
    """

    can_restart = True

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """`env` is the whole environment, except the number of the channel."""
        self._command = list(command)
        self._env = dict(env)
        self._child: subprocess.Popen[bytes] | None = None
        self._launched: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._tail: deque[tuple[float, bytes]] = deque(maxlen=TAIL_LINES)
        """The latest output, and when it was read."""
        self._tail_ended = asyncio.Event()

    def launch(self) -> None:
        """Start the process before the event loop runs; the next `start` uses it."""
        self._launched = self._new_process()

    def start(self, on_exit: Callable[[], None]) -> socket.socket:
        ours, child = self._launched or self._new_process()
        self._launched = None
        loop = asyncio.get_running_loop()
        self._tail.clear()
        self._tail_ended = asyncio.Event()
        _thread(self._wait, child, loop, on_exit)
        _thread(self._forward_stderr, child.stderr, loop, self._tail_ended)
        return ours

    def kill(self) -> None:
        if self._child is None:
            return
        with suppress(ProcessLookupError):  # all processes of the group have exited
            os.killpg(self._child.pid, signal.SIGKILL)

    async def exit_report(self, since: float) -> tuple[str, str]:
        with suppress(TimeoutError):
            async with asyncio.timeout(TAIL_WAIT_S):
                await self._tail_ended.wait()
        tail = b"".join(data for read_at, data in self._tail if read_at >= since)[-TAIL_BYTES:]
        lines = tail.decode("utf-8", "replace").splitlines()
        return ended_how(self.exit_code), "\n".join(lines[-TAIL_LINES:])

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.returncode

    def _new_process(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = channel.pair()
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603 - the user's own program
                self._command,
                env={**self._env, "RUNPOD_WORKER_CHANNEL_FD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        return ours, self._child

    @staticmethod
    def _wait(child: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        """Wait until the process has exited, and end what it leaves behind before anyone starts the next one."""
        if processes.adopts_orphans():
            processes.wait_exit(child.pid)
            _log_ended(processes.end_orphans(but=[child.pid]))
        child.wait()
        _call_on_loop(loop, on_exit)

    def _forward_stderr(self, stderr: IO[bytes], loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        """Copy the executor's standard error to ours, and keep its end."""
        with stderr as pipe:
            while data := _read_with_time(pipe.fileno(), self._tail):
                try:
                    os.write(2, data)
                except OSError:  # nothing reads the agent's standard error; keep the executor's last lines anyway
                    continue
        _call_on_loop(loop, ended.set)


def _read_with_time(handle: int, tail: deque[tuple[float, bytes]]) -> bytes:
    """Read, and add what was read to `tail` with a time before the read.

    Then output that an executor saw read before a job started (`executor/runners`) never counts as that job's.
    """
    select.select([handle], [], [])
    read_at = time.monotonic()
    data = os.read(handle, 65536)
    while tail and sum(len(kept) for _, kept in tail) > TAIL_BYTES:
        tail.popleft()
    tail.append((read_at, data[-TAIL_BYTES:]))
    return data


class Parent:
    """The process that started this agent. Only its own parent learns its exit code."""

    can_restart = False
    exit_code = None

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self._pid = pid
        self._is_watched = False
        self._watch_ended = asyncio.Event()

    def start(self, on_exit: Callable[[], None]) -> socket.socket:
        loop = asyncio.get_running_loop()
        if os.getppid() != self._pid:
            loop.call_soon(on_exit)
        else:
            self._start_watch(loop, on_exit)
        return self._sock

    def _start_watch(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        if not hasattr(os, "pidfd_open"):  # only Linux has it; elsewhere the channel closes when the parent exits
            return
        try:
            handle = os.pidfd_open(self._pid)
        except ProcessLookupError:  # it has exited since it was our parent
            loop.call_soon(on_exit)
            return
        self._is_watched = True
        started = processes.descendants(self._pid, but=[os.getpid()])
        _thread(self._watch, handle, started, loop, on_exit)

    def _watch(
        self,
        handle: int,
        started: set[processes.ProcessId],
        loop: asyncio.AbstractEventLoop,
        on_exit: Callable[[], None],
    ) -> None:
        """Wait until the parent has exited, and then end the processes that it has started."""
        exited = select.poll()
        exited.register(handle, select.POLLIN)
        while not exited.poll(SCAN_INTERVAL_S * 1000):
            started = processes.descendants(self._pid, but=[os.getpid()])
        os.close(handle)
        _log_ended(processes.end(partial(processes.running, started)))
        _call_on_loop(loop, self._watch_ended.set)
        _call_on_loop(loop, on_exit)

    def kill(self) -> None:
        if os.getppid() == self._pid:
            os.kill(self._pid, signal.SIGKILL)

    async def exit_report(self, since: float) -> tuple[str, str]:
        if self._is_watched:
            with suppress(TimeoutError):
                async with asyncio.timeout(processes.CHILD_GRACE_S + 2 * processes.KILL_S):
                    await self._watch_ended.wait()
        return "died", ""


def _log_ended(count: int) -> None:
    if count:
        log.warning("executor.children_ended", extra={"processes": count})


def ended_how(code: int | None) -> str:
    """Describe an exit code."""
    if code is None:
        return "died"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _thread(target: Callable[..., None], *args: object) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def _call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: the agent has ended
        loop.call_soon_threadsafe(call)
