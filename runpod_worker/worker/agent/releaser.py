"""Releases takes and jobs, and repeats each release until the service has answered."""

from __future__ import annotations

import asyncio
from functools import partial

from runpod_worker.core.dispatch.values import AttemptRef
from runpod_worker.core.errors import LinkRefused
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.link.http import HttpLink


class Releaser:
    """Collects releases while a request is open; the next request carries all of them."""

    def __init__(self, link: HttpLink, breaker: CircuitBreaker) -> None:
        self._link = link
        self._breaker = breaker
        self._take_ids: list[str] = []
        self._attempts: list[AttemptRef] = []
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def release_take(self, take_id: str) -> None:
        """Release all jobs that the take returned."""
        self._take_ids.append(take_id)
        self._start()

    def release(self, attempt: AttemptRef) -> None:
        """Release the attempt."""
        log.info("job.released", extra={"job": attempt.job_id, "attempt": attempt.number})
        self._attempts.append(attempt)
        self._start()

    async def wait_empty(self) -> None:
        """Wait until the service has answered every release."""
        await self._empty.wait()

    async def run(self) -> None:
        """Send releases until cancelled."""
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            take_ids, self._take_ids = self._take_ids, []
            attempts, self._attempts = self._attempts, []
            try:
                await self._breaker.call(partial(self._link.release, take_ids, attempts))
            except LinkRefused as error:
                log.error("release.refused", extra={"status": error.status, "error": str(error)})
            if not self._waiting.is_set():
                self._empty.set()

    def _start(self) -> None:
        self._empty.clear()
        self._waiting.set()
