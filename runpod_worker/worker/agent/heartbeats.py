"""The agent's periodic requests: heartbeats, and polls for attempts to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.effects import Effect, Send
from runpod_worker.core.dispatch.events import Agreed, Event, LeasesListed, StopRequested
from runpod_worker.core.dispatch.messages import Stop
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.link.http import HttpLink

MIN_INTERVAL_S = 0.1
"""A shorter heartbeat interval is raised to this."""

STOP_POLL_S = 90.0
"""Cancel a poll for stops after this time."""

MIN_HOLD_S = 0.5
"""A service that answers sooner without new stops has no long polls. It is polled at growing intervals."""

EMPTY = Backoff(base_s=0.05, cap_s=2.0)

REFUSED = Backoff(base_s=1.0, cap_s=60.0)
"""Pauses after a poll that was refused, as with a wrong key."""

NO_SUCH_ROUTE = frozenset({404, 405, 501})

NO_ROUTE_PAUSE_S = 60.0
"""If the service has no route for stops, wait this long before the next poll."""


class Heartbeats:
    """Sends heartbeats, whose replies name the extensions of the service."""

    def __init__(
        self,
        link: HttpLink,
        breaker: CircuitBreaker,
        dispatcher: Dispatcher,
        handle: Callable[[Event], object],
        interval_s: float,
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._dispatcher = dispatcher
        self._handle = handle
        self.interval_s = max(MIN_INTERVAL_S, interval_s)
        self._due = asyncio.Event()
        self._agreed: Agreed | None = None
        self.answered = asyncio.Event()
        """Set by the first reply. From then on the worker may take jobs."""

    async def run(self) -> None:
        """Send heartbeats until cancelled."""
        with suppress(LinkRefused):
            await self._breaker.call(partial(self._link.heartbeat, []))
        self._note_agreed()
        self.answered.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.interval_s):
                    await self._due.wait()
            self._due.clear()
            try:
                attempts = self._dispatcher.attempts()
                leased = await self._link.heartbeat(attempts)
                if leased is not None and attempts.keys() - leased:
                    self._handle(LeasesListed(attempts, leased))
                self._breaker.record_success()
                self._note_agreed()
            except LinkDown as error:
                self._breaker.record_failure(error)
            except LinkRefused as error:
                log.warning("heartbeat.refused", extra={"status": error.status, "error": str(error)})

    def hasten(self) -> None:
        """Send the next heartbeat now."""
        self._due.set()

    def _note_agreed(self) -> None:
        agreed = Agreed(self._link.extensions, self._link.files_url, self._link.max_file_bytes)
        if agreed != self._agreed:
            self._agreed = agreed
            self._handle(agreed)


class StopPoller:
    """Polls the service for attempts to stop."""

    def __init__(
        self,
        link: HttpLink,
        breaker: CircuitBreaker,
        handle: Callable[[Event], list[Effect]],
        *,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._handle = handle
        self._now = now
        self._random = random

    async def run(self) -> None:
        """Poll until cancelled. Each poll is a long poll."""
        tries = 0
        while True:
            await self._breaker.acquire()
            pause_s = await self._poll(tries)
            tries = tries + 1 if pause_s else 0
            await asyncio.sleep(pause_s)

    async def _poll(self, tries: int) -> float:
        """Poll once, and return the pause before the next poll."""
        started_at = self._now()
        try:
            async with asyncio.timeout(STOP_POLL_S):
                attempts = await self._link.poll_stops()
        except TimeoutError:
            return 0.0
        except LinkDown as error:
            return self._breaker.record_failure(error, tries)
        except LinkRefused as error:
            self._breaker.record_success()
            log.warning("stop_poll.refused", extra={"status": error.status, "error": str(error)})
            return NO_ROUTE_PAUSE_S if error.status in NO_SUCH_ROUTE else REFUSED.delay(tries, self._random)
        self._breaker.record_success()
        results = [self._handle(StopRequested(attempt)) for attempt in attempts]
        sent = [effect.message for result in results for effect in result if isinstance(effect, Send)]
        stops = any(isinstance(message, Stop) for message in sent)
        return 0.0 if stops or self._now() - started_at >= MIN_HOLD_S else EMPTY.delay(tries, self._random)
