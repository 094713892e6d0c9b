"""One executor as the agent sees it: its process, its channel and its slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from runpod_worker.log import log
from runpod_worker.worker.agent.process import Process
from runpod_worker.worker.agent.slots import Slots
from runpod_worker.worker.ipc.channel import AgentChannel
from runpod_worker.worker.ipc.messages import Ready, ToAgent, ToExecutor

LAST_FRAMES_S = 0.3
"""How long a dead process's last frames are waited for: a process it started may hold the channel open."""

EXIT_S = 5.0
"""How long a process may take to end after its channel has."""


class Bench:
    """Started again and again by its supervisor; everything about one life of the process ends in `settle`."""

    def __init__(self, process: Process, *, hear: Callable[[Bench, ToAgent], None]) -> None:
        self.process = process
        self.slots = Slots()
        self.ready: Ready | None = None
        self.load_error: str | None = None
        self.failed_check: str | None = None
        """The name of the fitness check that failed, when that is why it could not be loaded."""
        self.killed_for: str | None = None
        """Why the agent itself killed the process."""
        self._hear = hear
        self._channel: AgentChannel | None = None
        self._gone = asyncio.Event()
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()

    def start(self) -> None:
        """Start the process."""
        self.ready = self.load_error = self.failed_check = self.killed_for = None
        self._gone, self._exited, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        sock = self.process.start(_setter(self._exited, self._gone))
        self._channel = AgentChannel(sock, on_message=self._received, on_closed=self._channel_ended)

    def post(self, frame: ToExecutor) -> None:
        """Send a frame, if the executor is there."""
        if self._channel is not None:
            self._channel.send(frame)

    def kill(self, reason: str) -> None:
        """End the process now."""
        self.killed_for = reason
        log.warning("executor.killed", extra={"reason": reason})
        self.process.kill()

    async def gone(self) -> None:
        """Wait until the process has ended, or closed its channel."""
        await self._gone.wait()

    async def settle(self) -> tuple[str, str]:
        """After `gone`: hear the last frames, see the process end; how it ended, and its last lines."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_FRAMES_S if self._exited.is_set() else EXIT_S):
                await (self._closed if self._exited.is_set() else self._exited).wait()
        if self.process.respawns and not self._exited.is_set():
            self.kill("it closed its channel and went on")
            await self._exited.wait()
        if self._channel is not None:
            self._channel.close()
        return await self.process.last_words()

    async def dismiss(self, timeout_s: float) -> None:
        """Close the channel, upon which the executor ends; kill it when it does not in time."""
        if self._channel is None:
            return
        self._channel.close()
        if not self.process.respawns:  # it started us, and ends after us
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._exited.wait()
        except TimeoutError:
            self.kill("it did not end when it was told to")

    def _received(self, frame: ToAgent) -> None:
        self._hear(self, frame)

    def _channel_ended(self, error: Exception | None) -> None:
        if error is not None:
            log.error("channel.failed", extra={"error": str(error)}, exc_info=error)
        self._closed.set()
        if not self.process.respawns:
            self._exited.set()
        self._gone.set()


def _setter(*events: asyncio.Event) -> Callable[[], None]:
    def set_all() -> None:
        for event in events:
            event.set()

    return set_all
