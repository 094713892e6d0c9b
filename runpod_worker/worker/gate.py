"""Patience with a job service that is away.

While the service answers, every request passes at once. When one fails, the gate shuts: all requests wait in a line,
and one at a time is let through as a probe, at intervals that grow. The first that is answered opens the gate for all.
So a worker with a hundred undelivered results asks a service that is away no more often than one with a single result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused
from runpod_worker.log import log

PROBES = Backoff(base_s=0.4, cap_s=5.0)
"""Time between two probes: under 5 a second from the start, one in 2.5 s on average when it lasts."""

RETRIES = Backoff(base_s=0.05, cap_s=10.0)
"""One request's own waits: a single reset connection costs milliseconds; a request that always fails, nobody else."""

_Answer = TypeVar("_Answer")


class Gate:
    """Open while the service answers."""

    def __init__(self, *, now: Callable[[], float], random: Callable[[], float]) -> None:
        self._now = now
        self._random = random
        self._answering = asyncio.Event()
        self._answering.set()
        self._line = asyncio.Lock()
        self._probes = 0
        self._next_probe = 0.0

    @property
    def open(self) -> bool:
        """Whether the service answered when it was last asked."""
        return self._answering.is_set()

    async def turn(self) -> None:
        """Wait until a request may be sent. Tell `answered` or `failed` how it went."""
        if self._answering.is_set():
            return
        async with self._line:
            while not self._answering.is_set():
                wait = self._next_probe - self._now()
                if wait <= 0:
                    self._plan_probe()
                    return
                try:
                    async with asyncio.timeout(wait):
                        await self._answering.wait()
                except TimeoutError:
                    continue

    async def until_answered(self, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Repeat `send` until the service answers it.

        Raises:
            LinkRefused: that was the answer.
        """
        tries = 0
        while True:
            await self.turn()
            try:
                answer = await send()
            except LinkDown as error:
                self.failed(error)
                await asyncio.sleep(self.pause_after(error, tries))
                tries += 1
            except LinkRefused:
                self.answered()
                raise
            else:
                self.answered()
                return answer

    def pause_after(self, error: LinkDown, tries: int) -> float:
        """How long the request that failed should wait before it asks for its next turn."""
        wait = RETRIES.delay(tries, self._random)
        return max(wait, error.retry_after_s, BUSY_S) if isinstance(error, LinkBusy) else wait

    def answered(self) -> None:
        """The service answered."""
        if not self._answering.is_set():
            log.info("service.back", extra={"probes": self._probes})
            self._probes = 0
            self._answering.set()

    def failed(self, error: LinkDown) -> None:
        """The service did not answer, or said that it cannot."""
        if isinstance(error, LinkBusy):  # alive: this request should wait, the others need not
            return
        if self._answering.is_set():
            log.warning("service.away", extra={"error": str(error)})
            self._answering.clear()
            self._plan_probe()

    def _plan_probe(self) -> None:
        # At least a fifth of the ceiling: full jitter alone may draw many short waits in a row.
        wait = max(PROBES.ceiling(self._probes) / 5, PROBES.delay(self._probes, self._random))
        self._next_probe = self._now() + wait
        self._probes += 1


BUSY_S = 1.0
"""The least wait after 429."""
