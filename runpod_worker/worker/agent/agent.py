"""The network side of a worker: takes jobs, hands them to executors, beats, listens for stops, delivers.

It never runs user code and never imports torch, so nothing a handler does keeps it from beating or delivering. The way
out is one function that reads from top to bottom: `Agent._drain`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

from runpod_worker.config import WorkerSettings
from runpod_worker.core.backoff import Backoff
from runpod_worker.core.dispatch.values import AttemptRef
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import Gate
from runpod_worker.worker.agent.executors import Bench
from runpod_worker.worker.agent.health import signs_of_life
from runpod_worker.worker.agent.holding import Holding, Outside
from runpod_worker.worker.agent.outbox import Outbox
from runpod_worker.worker.agent.process import Process
from runpod_worker.worker.agent.reports import POSTS, Desk
from runpod_worker.worker.agent.spool import Spool
from runpod_worker.worker.agent.taker import EMPTY, HOLDS_S, PATIENCE_S, Taker
from runpod_worker.worker.ipc.messages import ToAgent
from runpod_worker.worker.link.port import Link

LOADS = 3
"""So many times in a row an executor may die before it is ready; then the worker gives up."""

UNFIT_S = 2.0
"""How long the service may take to hear that a fitness check failed."""

LOAD_PAUSE = Backoff(base_s=0.5, cap_s=5.0)

NO_SUCH_ROUTE = frozenset({404, 405, 501})
STOPS_AGAIN_S = 60.0
"""When a service without job-stop is asked again."""

GOODBYE_S = 5.0
"""The least time for last posts when the grace is over, and for executors to end."""


CUT_OFF_S = 0.5
"""How long an executor may take to end whose handler did not end in time."""


class Agent:
    """One worker."""

    def __init__(
        self,
        settings: WorkerSettings,
        link: Link,
        spool: Spool,
        processes: Sequence[Process],
        *,
        started_at: float,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`started_at`: when the worker's start began, by `now`."""
        self._settings = settings
        self._link = link
        self._spool = spool
        self._started_at = started_at
        self._now = now
        self._random = random
        self._gate = Gate(now=now, random=random)
        self._capacity = PrefetchEstimator(prefetch_s=settings.prefetch_s, prefetch_jobs=settings.prefetch_jobs)
        self._benches = [Bench(process, hear=self._hear) for process in processes]
        self._agreed = asyncio.Event()
        self._leaving = asyncio.Event()
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tokens: list[str] = []
        self._attempts: list[AttemptRef] = []
        self._to_return = asyncio.Event()
        self._returned = asyncio.Event()
        self._returned.set()
        self._code = 0
        self._signals = 0

    async def run(self) -> int:
        """Work until told to leave; the exit code."""
        for bench in self._benches:  # before anything else: their imports take longer than ours
            bench.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._assemble(tasks)
                await self._work(tasks)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await self._link.close()
            await asyncio.to_thread(self._spool.close)
        return self._code

    def leave(self, code: int, reason: str) -> None:
        """Drain and exit with this code; the first one counts."""
        if not self._leaving.is_set():
            log.info("worker.leaving", extra={"reason": reason})
            self._code = code
            self._leaving.set()

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals > 1:
            log.warning("worker.hurrying", extra={"reason": "a second signal"})
            self._code = self._code or 1
            self._hurry.set()
        self.leave(0, "told to stop by a signal")

    # ---------------------------------------------------------------- the parts

    def _assemble(self, tasks: asyncio.TaskGroup) -> None:
        self._taker = Taker(
            self._link,
            self._gate,
            self._capacity,
            slots=lambda: [bench.slots for bench in self._benches],
            crowded=lambda: self._outbox.crowded(sum(bench.slots.count for bench in self._benches)),
            received=lambda found, token: self._holding.received(found, token),
            give_back=self._give_back_token,
            now=self._now,
            random=self._random,
        )
        desk = Desk(
            link=self._link,
            gate=self._gate,
            spool=self._spool,
            worker_id=self._settings.worker_id,
            asking=self._taker,
            now=self._now,
            measured=self._capacity.add_round_trip,
            lost=lambda job: self._holding.lost(job),
            posts=asyncio.Semaphore(POSTS),
            tasks=tasks,
        )
        self._outbox = Outbox(desk, delivered=lambda job: self._holding.delivered(job))
        outside = Outside(changed=self._note, give_back=self._give_back, leave=self.leave)
        self._holding = Holding(
            self._link,
            self._outbox,
            self._capacity,
            self._benches,
            outside,
            stop_grace_s=self._settings.stop_grace_s,
            started_at=self._started_at,
            now=self._now,
        )

    async def _work(self, tasks: asyncio.TaskGroup) -> None:
        def begin(loop: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
            return tasks.create_task(self._guarded(loop, name), name=name)

        supervisors = [begin(self._supervise(bench), f"executor {i}") for i, bench in enumerate(self._benches)]
        beats = begin(self._beats(), "beats")
        taking = begin(self._takes(), "taking")
        stops = begin(self._stops(), "stops")
        returns = begin(self._returns(), "returns")
        replay = begin(self._replays(), "replay")
        life = begin(signs_of_life(self._settings.health_file), "signs of life")
        await self._leaving.wait()
        await self._drain(taking)
        for task in (*supervisors, beats, stops, returns, replay, life):
            task.cancel()

    async def _guarded(self, loop: Coroutine[None, None, None], name: str) -> None:
        try:
            await loop
        except Exception:
            log.exception("worker.fault", extra={"loop": name})
            self.leave(1, f"a fault in {name}")

    def _hear(self, bench: Bench, frame: ToAgent) -> None:
        self._holding.hear(bench, frame)

    def _note(self) -> None:
        self._changed.set()
        self._taker.changed()

    # ---------------------------------------------------------------- loops

    async def _takes(self) -> None:
        await self._agreed.wait()
        await self._taker.run()

    async def _beats(self) -> None:
        with suppress(LinkRefused):
            await self._gate.until_answered(lambda: self._link.heartbeat([]))
        self._agreed.set()
        while True:
            await asyncio.sleep(max(0.1, self._settings.ping_interval_s))
            try:
                await self._link.heartbeat(self._holding.names())
                self._gate.answered()
            except LinkDown as error:
                self._gate.failed(error)
            except LinkRefused as error:
                log.warning("beat.refused", extra={"status": error.status, "error": str(error)})

    async def _stops(self) -> None:
        await self._agreed.wait()
        tries = 0
        while True:
            await self._gate.turn()
            started = self._now()
            pause = 0.0
            try:
                async with asyncio.timeout(PATIENCE_S):
                    named = await self._link.poll_stops()
            except TimeoutError:
                continue
            except LinkDown as error:
                pause = self._gate.failed(error, tries)
            except LinkRefused as error:
                self._gate.answered()
                log.warning("stops.refused", extra={"status": error.status, "error": str(error)})
                pause = STOPS_AGAIN_S if error.status in NO_SUCH_ROUTE else EMPTY.delay(tries, self._random)
            else:
                self._gate.answered()
                news = sum([self._holding.stop(one) for one in named])
                if not news and self._now() - started < HOLDS_S:
                    pause = EMPTY.delay(tries, self._random)
            tries = tries + 1 if pause else 0
            if pause:
                await asyncio.sleep(pause)

    async def _returns(self) -> None:
        while True:
            await self._to_return.wait()
            self._to_return.clear()
            tokens, self._tokens = self._tokens, []
            attempts, self._attempts = self._attempts, []
            try:
                await self._gate.until_answered(lambda t=tokens, a=attempts: self._link.release(t, a))  # type: ignore[misc]
            except LinkRefused as error:
                log.error("return.refused", extra={"status": error.status, "error": str(error)})
            if not self._to_return.is_set():
                self._returned.set()

    async def _replays(self) -> None:
        await self._agreed.wait()
        await self._outbox.replay()

    def _give_back(self, attempts: Sequence[AttemptRef]) -> None:
        if "return" in self._link.extensions:
            self._attempts.extend(attempts)
            self._returned.clear()
            self._to_return.set()

    def _give_back_token(self, token: str) -> None:
        if "return" in self._link.extensions:
            self._tokens.append(token)
            self._returned.clear()
            self._to_return.set()

    # ---------------------------------------------------------------- executors

    async def _supervise(self, bench: Bench) -> None:
        failures = 0
        while True:
            overdue = asyncio.get_running_loop().call_later(self._settings.load_timeout_s, self._load_overdue, bench)
            await bench.gone()
            overdue.cancel()
            was_ready = bench.ready is not None
            how, last_lines = await bench.settle()
            self._holding.bury(bench, how, last_lines)
            failures = 0 if was_ready else failures + 1
            if bench.failed_check is not None:
                await self._tell_unfit(bench.failed_check, bench.load_error or "")
            if self._leaving.is_set() or self._cannot_go_on(bench, how, failures):
                return
            if failures:
                await asyncio.sleep(LOAD_PAUSE.ceiling(failures - 1))
            log.warning("executor.respawned", extra={"died": bench.killed_for or how})
            bench.start()

    async def _tell_unfit(self, check: str, reason: str) -> None:
        """Best effort, and bounded: whether it is heard or not, this worker ends."""
        try:
            async with asyncio.timeout(UNFIT_S):
                await self._link.report_unhealthy(check, reason.removeprefix(f"the check {check} failed: "))
        except (TimeoutError, LinkDown, LinkRefused) as error:
            log.warning("unfit.unheard", extra={"error": str(error)})

    def _cannot_go_on(self, bench: Bench, how: str, failures: int) -> bool:
        if bench.load_error is not None:
            reason = f"the model could not be loaded: {bench.load_error}"
        elif not bench.process.respawns:
            reason = f"the handler's process {how}"
        elif failures and bench.process.exit_code == 0:
            reason = "the handler's program ended without worker.start()"
        elif failures >= LOADS:
            reason = f"the handler's process {how} {failures} times before it was ready"
        else:
            return False
        log.error("worker.cannot_work", extra={"reason": reason})
        self.leave(1, reason)
        return True

    def _load_overdue(self, bench: Bench) -> None:
        if bench.ready is None:
            bench.load_error = f"it took longer than {self._settings.load_timeout_s:g} s (RUNPOD_INIT_TIMEOUT)"
            bench.kill(bench.load_error)

    # ---------------------------------------------------------------- the way out

    async def _drain(self, taking: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.grace_s
        self._taker.end()
        taking.cancel()  # cuts the held request
        self._holding.leave()
        await self._in_time(self._no_work(), deadline)
        patience = CUT_OFF_S if self._holding.abandon() else GOODBYE_S
        last_call = loop.time() + GOODBYE_S
        deadline = max(deadline, last_call) if self._gate.open else last_call
        goodbyes = [asyncio.ensure_future(bench.dismiss(patience)) for bench in self._benches]
        await asyncio.gather(taking, return_exceptions=True)
        await self._in_time(self._outbox.empty(), deadline)
        await self._in_time(self._returned.wait(), deadline)
        await self._outbox.keep_rest()
        if self._hurry.is_set():
            for bench in self._benches:
                bench.process.kill()
        await asyncio.gather(*goodbyes)

    async def _no_work(self) -> None:
        while self._holding.working:
            self._changed.clear()
            await self._changed.wait()

    async def _in_time(self, waiting: Coroutine[None, None, object], deadline: float) -> None:
        """Wait for this until the deadline, or until there is a hurry."""
        ways = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._hurry.wait())]
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait(ways, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
