"""The handle of an executor: its process and its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from runpod_worker.core.dispatch.messages import Shutdown, ToAgent, ToExecutor
from runpod_worker.core.dispatch.values import ExitReport
from runpod_worker.log import log
from runpod_worker.processes import CHILD_GRACE_S, KILL_S
from runpod_worker.worker.agent.process import Process
from runpod_worker.worker.ipc.channel import AgentChannel

LAST_MESSAGES_S = 0.3
"""Do not wait longer for the last messages of a dead process, whose own children may keep the channel open."""

EXIT_S = 5.0
"""Kill a process that has not exited this long after its channel closed."""

KILLED_S = CHILD_GRACE_S + 2 * KILL_S
"""Wait no longer for a killed process and for the processes that it has started."""


class ExecutorHandle:
    """Starts the executor's process, and starts it again after `wait_exit`."""

    def __init__(self, number: int, process: Process, on_message: Callable[[int, ToAgent], None]) -> None:
        self._process = process
        self._on_message = partial(on_message, number)
        self._channel: AgentChannel | None = None
        self._unsent: list[ToExecutor] = []
        self._killed_for: str | None = None
        self._job_started_at = 0.0
        self._ended = asyncio.Event()
        """The process has exited, or closed its channel."""
        self._exited = asyncio.Event()
        self._channel_closed = asyncio.Event()

    def start(self) -> None:
        """Start the process."""
        self._killed_for = None
        self._job_started_at = 0.0
        self._unsent.clear()
        self._ended, self._exited, self._channel_closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        sock = self._process.start(self._on_exited)
        self._channel = AgentChannel(sock, on_message=self._on_message, on_closed=self._on_channel_closed)

    def send(self, message: ToExecutor) -> None:
        """Send a message with the next `flush`, if the executor is running."""
        self._unsent.append(message)

    def note_started(self, at: float) -> None:
        """Record the start of a job: earlier output of the process is not that job's."""
        self._job_started_at = at

    def flush(self) -> None:
        """Send the messages together: several jobs wake the executor only once."""
        if self._unsent and self._channel is not None:
            self._channel.send(*self._unsent)
        self._unsent.clear()

    def kill(self, reason: str) -> None:
        """Kill the process."""
        self._killed_for = reason
        log.warning("executor.killed", extra={"reason": reason})
        self._process.kill()

    async def wait_exit(self) -> ExitReport:
        """Wait until the process has ended and its last messages were received; return the exit report."""
        await self._ended.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGES_S if self._exited.is_set() else EXIT_S):
                await (self._channel_closed if self._exited.is_set() else self._exited).wait()
        if self._process.can_restart and not self._exited.is_set():
            self.kill("it closed its channel and did not exit")
            await self._exited.wait()
        if self._channel is not None:
            self._channel.close()
        how, last_lines = await self._process.exit_report(self._job_started_at)
        return ExitReport(
            how=how,
            last_lines=last_lines,
            exit_code=self._process.exit_code,
            killed_for=self._killed_for,
            can_restart=self._process.can_restart,
        )

    async def shutdown(self, timeout_s: float) -> None:
        """Close the channel, which ends the executor. Kill it after `timeout_s`."""
        if self._channel is None:
            return
        self._channel.send(Shutdown())
        self._channel.close()
        if not self._process.can_restart:  # it started this agent, and exits after it
            return
        await self._exit_within(timeout_s)

    async def retire(self, timeout_s: float) -> None:
        """Ask the executor to send what is left and exit. Kill it after `timeout_s`."""
        if self._channel is not None:
            self._channel.send(Shutdown())
            await self._exit_within(timeout_s)

    async def _exit_within(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._exited.wait()
        except TimeoutError:
            self.kill("it did not end when its channel was closed")
            with suppress(TimeoutError):
                async with asyncio.timeout(KILLED_S):
                    await self._exited.wait()

    def _on_exited(self) -> None:
        self._exited.set()
        self._ended.set()

    def _on_channel_closed(self, error: Exception | None) -> None:
        if error is not None:
            log.error("channel.failed", extra={"error": str(error)}, exc_info=error)
        self._channel_closed.set()
        if not self._process.can_restart:
            self._exited.set()
        self._ended.set()
