"""Asking for jobs: as many as `core.capacity` says, when it says so.

One request is open at a time. It is held by the service while there is nothing to do. Where that is agreed, outcomes
carry the wish as well, which saves the request. Whatever was asked for and not answered is given back by its token.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.dispatch.values import Assignment, TakeRequest
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.core.protocol import MIB
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import Gate
from runpod_worker.worker.agent.slots import Slots
from runpod_worker.worker.link.port import Link

PATIENCE_S = 90.0
"""How long a held request is waited for: the reference SDK's patience, which services count on."""

MOST = 100
"""Most jobs in one request (docs/extensions.md)."""

AHEAD_BYTES = 32 * MIB
"""Jobs are not held ahead when their bodies, by what recent ones weighed, would be more than this."""

HOLDS_S = 0.5
"""A service that says "no job" sooner than this does not hold requests: it is asked at growing intervals."""

EMPTY = Backoff(base_s=0.05, cap_s=2.0)
REFUSED = Backoff(base_s=1.0, cap_s=30.0)


class Taker:
    """Keeps the contract of `delivery.Asking`."""

    def __init__(
        self,
        link: Link,
        gate: Gate,
        capacity: PrefetchEstimator,
        *,
        slots: Callable[[], Iterable[Slots]],
        crowded: Callable[[], bool],
        received: Callable[[Assignment, str], None],
        give_back: Callable[[str], None],
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """`received` gets each job and the token under which it came; `give_back` each token whose jobs were perhaps
        never seen."""
        self._link = link
        self._gate = gate
        self._capacity = capacity
        self._slots = slots
        self._crowded = crowded
        self._received = received
        self._give_back = give_back
        self._now = now
        self._random = random
        self._prefix = secrets.token_urlsafe(12)
        self._tokens = 0
        self._asked = 0
        self._weight = 1.0
        self._ended = False
        self._changed = asyncio.Event()
        self._held: asyncio.Timeout | None = None
        self._tries = 0

    def changed(self) -> None:
        """A slot or an outcome came or went."""
        self._changed.set()

    def end(self) -> None:
        """TakeRequest for nothing more. The caller cancels `run`."""
        self._ended = True

    async def run(self) -> None:
        """TakeRequest for jobs for ever."""
        while True:
            if self._wanted(self._now()) <= 0:
                await self._until_changed()
                continue
            await self._gate.turn()
            wanted = self._wanted(self._now())
            if wanted > 0:
                await self._take(self._new(wanted))

    # ---------------------------------------------------------------- with an outcome

    def ask(self) -> TakeRequest | None:
        if "take" not in self._link.extensions:
            return None
        wanted = self._wanted(self._now())
        return self._new(wanted) if wanted > 0 else None

    def arrived(self, ask: TakeRequest, jobs: Sequence[Assignment]) -> None:
        self._asked -= ask.max_jobs
        for job in jobs:
            self._weight = max(len(job.body), self._weight * 0.9)
            self._received(job, ask.id)
        self._changed.set()

    def unanswered(self, ask: TakeRequest) -> None:
        self._asked -= ask.max_jobs
        self._give_back(ask.id)
        self._changed.set()

    # ---------------------------------------------------------------- how many, and when

    def _wanted(self, now: float) -> int:
        if self._ended or self._crowded():
            return 0
        all_slots = list(self._slots())
        wanted = sum(self._capacity.jobs_wanted(one.free, one.elapsed(now)) for one in all_slots)
        fits = max(sum(one.free for one in all_slots), 1, int(AHEAD_BYTES / self._weight))
        held = sum(one.waiting for one in all_slots) + self._asked
        return min(min(wanted, fits) - held, MOST)

    async def _until_changed(self) -> None:
        self._changed.clear()
        now = self._now()
        if self._wanted(now) > 0:  # became true since it was last looked at; `due_in` names only what is to come
            return
        dues = [self._capacity.due_in(one.elapsed(now)) for one in self._slots() if one.count]
        due = min((due for due in dues if due is not None), default=None)
        if due is None or self._asked or self._crowded() or self._ended:
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(due):
                await self._changed.wait()
        except TimeoutError:
            return

    # ---------------------------------------------------------------- one request

    def _new(self, wanted: int) -> TakeRequest:
        self._asked += wanted
        self._tokens += 1
        return TakeRequest(wanted, f"{self._prefix}{self._tokens}")

    async def _take(self, ask: TakeRequest) -> None:
        started = self._now()
        try:
            jobs = await self._wait_for_jobs(ask)
        except TimeoutError:
            self.unanswered(ask)
        except LinkDown as error:
            self.unanswered(ask)
            await self._pause(self._gate.failed(error, self._tries))
        except LinkRefused as error:
            self.arrived(ask, ())
            self._gate.answered()
            log.error("take.refused", extra={"status": error.status, "error": str(error)})
            await self._pause(REFUSED.delay(self._tries, self._random))
        except asyncio.CancelledError:
            self.unanswered(ask)
            raise
        else:
            self._gate.answered()
            self.arrived(ask, jobs)
            if not jobs and self._now() - started < HOLDS_S:
                await self._pause(EMPTY.delay(self._tries, self._random))
            else:
                self._tries = 0

    async def _wait_for_jobs(self, ask: TakeRequest) -> Sequence[Assignment]:
        busy = any(one.jobs for one in self._slots())
        watch = self._watch_hostage()
        try:
            async with asyncio.timeout(PATIENCE_S) as self._held:
                return await self._link.take(ask, busy=busy)
        finally:
            self._held = None
            if watch is not None:
                watch.cancel()

    async def _pause(self, seconds: float) -> None:
        self._tries += 1
        await asyncio.sleep(seconds)

    # ---------------------------------------------------------------- no hostages

    def _watch_hostage(self) -> asyncio.TimerHandle | None:
        """Withdraw a request made ahead of slots whose jobs turn out to be long ones: others should get its job."""
        rest = self._hostage_in()
        if rest is None:
            return None
        return asyncio.get_running_loop().call_later(max(rest, 0.0), self._withdraw_hostage)

    def _withdraw_hostage(self) -> None:
        rest = self._hostage_in()
        if self._held is None or rest is None:
            return
        loop = asyncio.get_running_loop()
        if rest > 0:
            loop.call_later(rest, self._withdraw_hostage)
        else:
            self._held.reschedule(loop.time())

    def _hostage_in(self) -> float | None:
        """When all busy slots' jobs have outlived what was expected; None while a slot is free."""
        now, times = self._now(), []
        for one in self._slots():
            if one.free > one.waiting:
                return None
            times += [self._capacity.outlier_s - elapsed for elapsed in one.elapsed(now)]
        return max(times, default=None)
