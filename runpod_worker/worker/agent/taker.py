"""Takes jobs: as many as the dispatcher wants, when it wants them.

At most one long poll is open. If the service offers it, reports carry takes too, which saves a request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.events import Assigned, Event, TakeLost, TakeSent
from runpod_worker.core.dispatch.values import Assignment, TakeRequest
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.link.http import HttpLink

LONG_POLL_S = 90.0
"""Cancel a long poll after this time, as the reference SDK does; services expect that."""

MIN_HOLD_S = 0.5
"""A service that answers "no job" sooner has no long polls. It is polled at growing intervals."""

EMPTY = Backoff(base_s=0.05, cap_s=2.0)
REFUSED = Backoff(base_s=1.0, cap_s=30.0)


class Taker:
    """Opens takes, and passes their replies to the dispatcher."""

    def __init__(
        self,
        link: HttpLink,
        breaker: CircuitBreaker,
        dispatcher: Dispatcher,
        handle: Callable[[Event], object],
        *,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._dispatcher = dispatcher
        self._handle = handle
        self._now = now
        self._random = random
        self._prefix = secrets.token_urlsafe(12)
        self._number = 0
        self._wanted = asyncio.Event()
        self._poll_id = ""
        self._poll: asyncio.Timeout | None = None
        self._tries = 0

    @property
    def is_waiting(self) -> bool:
        """Whether `run` waits for `wake`."""
        return not self._wanted.is_set()

    def wake(self) -> None:
        """Wake `run`, because the dispatcher wants jobs."""
        self._wanted.set()

    def withdraw(self, take_id: str) -> None:
        """Cancel this long poll."""
        if self._poll is not None and self._poll_id == take_id:
            self._poll.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Take jobs until cancelled."""
        while True:
            self._wanted.clear()
            if self._dispatcher.wanted(self._now()) <= 0:
                await self._wanted.wait()
            self._wanted.set()
            await self._breaker.acquire()
            request = self._open(is_poll=True)
            if request is not None:
                await self._take(request)

    # ---------------------------------------------------------------- takes that travel with a report

    def open(self) -> TakeRequest | None:
        """Return the take for a report; None if no job is wanted, or the service does not offer it."""
        return self._open(is_poll=False) if "take" in self._link.extensions else None

    def receive(self, request: TakeRequest, jobs: Sequence[Assignment]) -> None:
        """Pass the reply of a take to the dispatcher."""
        for job in jobs:
            log.debug("job.taken", extra={"job": job.id, "attempt": job.attempt})
            if job.error is not None:
                log.error("job.rejected", extra={"job": job.id, "error": job.error})
        self._handle(Assigned(request.id, tuple(jobs)))

    def lose(self, request: TakeRequest) -> None:
        """Report a take without a reply to the dispatcher."""
        self._handle(TakeLost(request.id))

    # ---------------------------------------------------------------- long polls

    def _open(self, *, is_poll: bool) -> TakeRequest | None:
        wanted = self._dispatcher.wanted(self._now())
        if wanted <= 0:
            return None
        self._number += 1
        request = TakeRequest(wanted, f"{self._prefix}{self._number}")
        self._handle(TakeSent(request, is_poll))
        return request

    async def _take(self, request: TakeRequest) -> None:
        started_at = self._now()
        try:
            jobs = await self._wait_for_jobs(request)
        except TimeoutError:
            self.lose(request)
        except LinkDown as error:
            self.lose(request)
            await self._pause(self._breaker.record_failure(error, self._tries))
        except LinkRefused as error:
            self.receive(request, ())
            self._breaker.record_success()
            log.error("take.refused", extra={"status": error.status, "error": str(error)})
            await self._pause(REFUSED.delay(self._tries, self._random))
        except asyncio.CancelledError:
            self.lose(request)
            raise
        else:
            self._breaker.record_success()
            self.receive(request, jobs)
            if not jobs and self._now() - started_at < MIN_HOLD_S:
                await self._pause(EMPTY.delay(self._tries, self._random))
            else:
                self._tries = 0

    async def _wait_for_jobs(self, request: TakeRequest) -> Sequence[Assignment]:
        self._poll_id = request.id
        try:
            async with asyncio.timeout(LONG_POLL_S) as self._poll:
                return await self._link.take(request, busy=self._dispatcher.is_busy)
        finally:
            self._poll = None

    async def _pause(self, seconds: float) -> None:
        self._tries += 1
        await asyncio.sleep(seconds)
