"""Patience with a job service that is away.

While the service answers, every request passes at once. When one fails, the gate shuts: all requests wait in a line,
and one at a time is let through as a probe, at intervals that grow. The first that is answered opens the gate for all.
So a worker with a hundred undelivered results asks a service that is away no more often than one with a single result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused
from runpod_worker.log import log

URGENT_S = 1.0
"""The longest time between two probes while something waits to be delivered."""

PROBES = Backoff(base_s=0.4, cap_s=URGENT_S)
IDLE_PROBES = Backoff(base_s=0.4, cap_s=5.0)
"""Time between two probes, at least half of it each: under 5 a second from the start."""

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
        self._news = asyncio.Event()
        self._to_deliver = 0
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
                self._news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._news.wait()

    async def until_answered(self, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Repeat `send` until the service answers it.

        Raises:
            LinkRefused: that was the answer.
        """
        self._to_deliver += 1
        try:
            return await self._until_answered(send)
        finally:
            self._to_deliver -= 1

    async def _until_answered(self, send: Callable[[], Awaitable[_Answer]]) -> _Answer:
        tries = 0
        while True:
            self._hurry()
            await self.turn()
            try:
                answer = await send()
            except LinkDown as error:
                await asyncio.sleep(self.failed(error, tries))
                tries += 1
            except LinkRefused:
                self.answered()
                raise
            else:
                self.answered()
                return answer

    def answered(self) -> None:
        """The service answered."""
        if not self._answering.is_set():
            log.info("service.back", extra={"probes": self._probes})
            self._probes = 0
            self._answering.set()
            self._news.set()

    def failed(self, error: LinkDown, tries: int = 0) -> float:
        """The service did not answer, or said that it cannot: how long to wait before asking for the next turn.

        `tries`: how often this request failed before. That counts only while others are answered: in an outage the gate
        sets the pace, and when it is over nobody should still be waiting for the sake of tries that all had to fail.
        """
        if isinstance(error, LinkBusy):  # alive: this request should wait, the others need not
            return max(RETRIES.delay(tries, self._random), error.retry_after_s, BUSY_S)
        if not self._answering.is_set():
            return RETRIES.delay(0, self._random)
        log.warning("service.away", extra={"error": str(error)})
        self._answering.clear()
        self._plan_probe()
        return RETRIES.delay(tries, self._random)

    def _hurry(self) -> None:
        """Something has to be delivered: a probe that was planned for later comes sooner."""
        soon = self._now() + URGENT_S
        if not self._answering.is_set() and self._next_probe > soon:
            self._next_probe = soon
            self._news.set()

    def _plan_probe(self) -> None:
        ceiling = (PROBES if self._to_deliver else IDLE_PROBES).ceiling(self._probes)
        self._next_probe = self._now() + ceiling * (1 + self._random()) / 2
        self._probes += 1


BUSY_S = 1.0
"""The least wait after 429."""
