"""Circuit breaker for the job service: after a failure, one probe at a time until one succeeds.

While the circuit is closed, every request passes at once. A failure opens it: requests wait in a line, and one at a
time passes as a probe, at growing intervals. The first reply closes the circuit for all. So a worker with a
hundred undelivered results probes an unreachable service no more often than a worker with one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import BodyRefused, LinkBusy, LinkDown, LinkRefused
from runpod_worker.log import log

MAX_DELIVERY_PROBE_S = 1.0
"""While a report waits for delivery, probes are at most this far apart."""

DELIVERY_PROBE = Backoff(base_s=0.4, cap_s=MAX_DELIVERY_PROBE_S)
IDLE_PROBE = Backoff(base_s=0.4, cap_s=5.0)
"""The time between two probes. Jitter shortens it by at most half, so there are at most 5 probes a second."""

RETRY = Backoff(base_s=0.05, cap_s=10.0)
"""Backoff of a single request.

Starts at 50 ms so that one reset connection costs little; grows so that a request that keeps failing does not slow the
others.
"""

DENIED = Backoff(base_s=2.0, cap_s=30.0)
"""The time between two tries of a report that a wrong key, a wrong URL or a proxy keeps from the service."""

MAX_DENIED_S = 24 * 3600.0
"""Give up such a report after this time: the platform's default ttl of a job."""

DENIED_HINT = "reports are kept and sent again: check the API key, the URLs and any proxy before the job service"

MIN_BUSY_S = 1.0
"""Wait at least this long after status 429."""

_Reply = TypeVar("_Reply")


class CircuitBreaker:
    """Closed while the service answers."""

    def __init__(self, *, now: Callable[[], float], random: Callable[[], float]) -> None:
        self._now = now
        self._random = random
        self._closed = asyncio.Event()
        self._closed.set()
        self._line = asyncio.Lock()
        self._changed = asyncio.Event()
        self._denied = 0
        """The number of reports that were denied and wait for the next try."""
        self._calls = 0
        """The number of reports that wait for a reply."""
        self._probes = 0
        self._next_probe_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the service answered the latest request."""
        return self._closed.is_set()

    @property
    def is_accepting(self) -> bool:
        """Whether the service answers, and no report waits because it was denied."""
        return self.is_closed and not self._denied

    async def acquire(self) -> None:
        """Wait until a request may be sent. Call `record_success` or `record_failure` after it."""
        if self._closed.is_set():
            return
        async with self._line:
            while not self._closed.is_set():
                wait_s = self._next_probe_at - self._now()
                if wait_s <= 0:
                    self._plan_probe()
                    return
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()

    async def call(self, send: Callable[[], Awaitable[_Reply]]) -> _Reply:
        """Repeat `send` until the service answers, and return the reply.

        Raises:
            LinkRefused: the service refused the request.
        """
        self._calls += 1
        try:
            return await self._call(send)
        finally:
            self._calls -= 1

    async def deliver(self, send: Callable[[], Awaitable[_Reply]], *, max_denied_s: float = MAX_DENIED_S) -> _Reply:
        """Repeat `send` until the service accepts or refuses a report, and return the reply.

        A 4xx that does not refuse the content comes from a wrong key, a wrong URL or a proxy. It must not cost a
        result, so the report is sent again, at growing intervals.

        Raises:
            BodyRefused: the service refused the content.
            LinkRefused: the report was denied for `max_denied_s`.
        """
        give_up_at, tries = self._now() + max_denied_s, 0
        while True:
            try:
                reply = await self.call(send)
            except BodyRefused:
                raise
            except LinkRefused as error:
                if self._now() >= give_up_at:
                    raise
                await self._wait_denied(error, tries)
                tries += 1
            else:
                if tries:
                    log.info("report.accepted", extra={"tries": tries + 1})
                return reply

    def denied_delay_s(self, tries: int) -> float:
        """Return how long a report waits after it was denied, and denied `tries` times before."""
        return DENIED.ceiling(tries) * (1 + self._random()) / 2

    async def _wait_denied(self, error: LinkRefused, tries: int) -> None:
        """Wait until a denied report may be sent again. Log the first of the reports that are denied together."""
        if not self._denied and not tries:
            log.error("report.denied", extra={"status": error.status, "error": str(error), "hint": DENIED_HINT})
        self._denied += 1
        try:
            await asyncio.sleep(self.denied_delay_s(tries))
        finally:
            self._denied -= 1

    async def _call(self, send: Callable[[], Awaitable[_Reply]]) -> _Reply:
        tries = 0
        while True:
            self._hasten_probe()
            await self.acquire()
            try:
                reply = await send()
            except LinkDown as error:
                await asyncio.sleep(self.record_failure(error, tries))
                tries += 1
            except LinkRefused:
                self.record_success()
                raise
            else:
                self.record_success()
                return reply

    def record_success(self) -> None:
        """Close the circuit, because the service answered."""
        if not self._closed.is_set():
            log.info("service.recovered", extra={"probes": self._probes})
            self._probes = 0
            self._closed.set()
            self._changed.set()

    def record_failure(self, error: LinkDown, tries: int = 0) -> float:
        """Open the circuit, because the service did not answer. Return how long to wait before `acquire`.

        `tries`: the number of earlier failures of this request. It counts only while the circuit is closed. During an
        outage the breaker sets the pace, and no request should wait longer after the outage because it failed in it.
        """
        if isinstance(error, LinkBusy):  # the service is up, so only this request waits
            return max(RETRY.delay(tries, self._random), error.retry_after_s, MIN_BUSY_S)
        if not self._closed.is_set():
            return RETRY.delay(0, self._random)
        log.warning("service.lost", extra={"error": str(error)})
        self._closed.clear()
        self._plan_probe()
        return RETRY.delay(tries, self._random)

    def suspend(self) -> None:
        """Open the circuit, because nothing is known about the service any more. The next reply closes it."""
        if self._closed.is_set():
            self._closed.clear()
            self._plan_probe()

    def _hasten_probe(self) -> None:
        """Let the next probe come earlier, because a report waits for delivery."""
        latest = self._now() + MAX_DELIVERY_PROBE_S
        if not self._closed.is_set() and self._next_probe_at > latest:
            self._next_probe_at = latest
            self._changed.set()

    def _plan_probe(self) -> None:
        ceiling_s = (DELIVERY_PROBE if self._calls else IDLE_PROBE).ceiling(self._probes)
        self._next_probe_at = self._now() + ceiling_s * (1 + self._random()) / 2
        self._probes += 1
