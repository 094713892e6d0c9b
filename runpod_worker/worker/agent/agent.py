"""The network side of a worker: a shell around the dispatcher.

It receives events (from executors, the service, signals and the clock), and performs the effects that the dispatcher
returns. It never runs user code and never imports torch, so no handler can keep it from sending heartbeats or reports.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine, Sequence

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.messages import Ready, Report, Started, ToAgent, WindowUpdate
from runpod_worker.core.dispatch.values import OnRefresh
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.log import log
from runpod_worker.system import boot_time
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.agent.delivery import Delivery
from runpod_worker.worker.agent.executors import ExecutorHandle
from runpod_worker.worker.agent.health import touch_health_file
from runpod_worker.worker.agent.heartbeats import Heartbeats, StopPoller
from runpod_worker.worker.agent.outbox import Outbox
from runpod_worker.worker.agent.performer import Performer
from runpod_worker.worker.agent.process import Process
from runpod_worker.worker.agent.releaser import Releaser
from runpod_worker.worker.agent.replay import Replay
from runpod_worker.worker.agent.spool import Spool
from runpod_worker.worker.agent.taker import Taker
from runpod_worker.worker.agent.timer import DeadlineTimer, FreezeWatch
from runpod_worker.worker.link.http import HttpLink

UNHEALTHY_S = 2.0
"""Limit for the report of a failed fitness check, which is tried once."""

MIN_SHUTDOWN_S = 5.0
"""After the last job has ended, the last reports get at least this time, and executors get this time to exit."""

CUT_OFF_S = 0.5
"""If jobs still ran when the grace ended, executors get only this time to exit."""

TAKING, UNHEALTHY = "taking", "unhealthy"
"""Names of tasks that the shutdown waits for."""


class Agent:
    """One worker's agent."""

    def __init__(
        self,
        settings: WorkerSettings,
        link: HttpLink,
        spool: Spool,
        processes: Sequence[Process],
        *,
        started_at: float,
        on_refresh: OnRefresh = OnRefresh.EXIT,
        now: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - only compared with the other clocks
    ) -> None:
        """`started_at`: the beginning of the worker's start, by `now`."""
        self._settings = settings
        self._link = link
        self._spool = spool
        self._started_at = started_at
        self._now = now
        self._breaker = CircuitBreaker(now=now, random=random)
        self._dispatcher = _new_dispatcher(settings, len(processes), on_refresh)
        self._timer = DeadlineTimer(self._dispatcher, self._on_due, now=now)
        self._executors = [ExecutorHandle(n, process, self._on_message) for n, process in enumerate(processes)]
        self._taker = Taker(link, self._breaker, self._dispatcher, self.handle, now=now, random=random)
        self._releaser = Releaser(link, self._breaker)
        delivery = Delivery(
            link, self._breaker, spool, self._taker, self.handle, settings.worker_id, on_sent=self._on_sent, now=now
        )
        self._outbox = Outbox(delivery, self.handle)
        self._replay = Replay(link, self._breaker, spool)
        self._performer = Performer(link, self._executors, self._taker, self._releaser, self._outbox)
        self._heartbeats = Heartbeats(link, self._breaker, self._dispatcher, self.handle, settings.ping_interval_s)
        self._stop_poller = StopPoller(link, self._breaker, self.handle, now=now, random=random)
        self._watch = FreezeWatch(self._heartbeats.interval_s, (now, boot_time, wall))
        self._tasks: set[asyncio.Task[None]] = set()
        self._exiting = asyncio.Event()
        self._forced = asyncio.Event()
        self._draining = self._cut_off = self._signaled = self._settling = False
        self._grace_ends_at = 0.0
        self._code = 0

    async def run(self) -> int:
        """Run until a signal, an internal error or the handler ends the worker; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            self.handle(events.WorkerStarted())  # first, because an executor's imports take longer than the agent's
            self._spawn(self._take_jobs(), TAKING)
            self._spawn(self._heartbeats.run(), "heartbeats")
            self._spawn(self._stop_poller.run(), "stops")
            self._spawn(self._watch_freezes(), "freezes")
            self._spawn(self._releaser.run(), "releases")
            self._spawn(self._replay_spool(), "replay")
            self._spawn(touch_health_file(self._settings.health_file), "health file")
            await self._exiting.wait()
            await self._shut_down()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._link.close()
            await asyncio.to_thread(self._spool.close)
        return self._code

    # ---------------------------------------------------------------- events in, effects out

    def handle(self, event: events.Event) -> list[effects.Effect]:
        """Pass the event to the dispatcher, and perform its effects."""
        now = self._now()
        if now > self._watch.overdue_at:  # the event waited while this process was frozen
            self._check_freeze()
        result = self._dispatcher.handle(event, now)
        for effect in result:
            if isinstance(effect, effects.WorkerEffect):
                self._perform(effect)
            else:
                self._performer.perform(effect)
        if result:
            self._flush()
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)
        return result

    def _settle(self) -> None:
        """After the events of one turn of the loop, take jobs if some are wanted, and set the timer."""
        self._settling = False
        if self._taker.is_waiting and self._dispatcher.wanted(self._now()) > 0:
            self._taker.wake()
        self._timer.update()

    def _on_due(self) -> None:
        self.handle(events.Tick())

    def _perform(self, effect: effects.WorkerEffect) -> None:
        match effect:
            case effects.StartExecutor():
                self._spawn(self._run_executor(effect), f"executor {effect.executor}")
            case effects.Retire():
                executor = self._executors[effect.executor]
                self._spawn(executor.retire(MIN_SHUTDOWN_S), f"end of executor {effect.executor}")
            case effects.ReportUnhealthy():
                self._spawn(self._report_unhealthy(effect), UNHEALTHY)
            case effects.Reconnect():
                self._reconnect(effect)
            case effects.AnnounceDrain():
                self._announce_drain(effect)
            case effects.Exit():
                self._cut_off = effect.cut_off
                self._exiting.set()

    # ---------------------------------------------------------------- executors

    async def _run_executor(self, effect: effects.StartExecutor) -> None:
        """Run one process of the executor until it exits."""
        await asyncio.sleep(effect.delay_s)
        if self._draining:
            return
        if effect.exited is not None:
            log.warning("executor.restarted", extra={"exited": effect.exited})
        executor = self._executors[effect.executor]
        executor.start()
        report = await executor.wait_exit()
        for result in self.handle(events.ExecutorExited(effect.executor, report)):
            if isinstance(result, effects.Report) and result.stopped_for is None:
                log.error("job.process_died", extra={"job": result.attempt.job_id, "how": report.how})
        self._outbox.fail_missing_files(effect.executor, report.how)

    def _on_message(self, executor: int, message: ToAgent) -> None:
        if isinstance(message, Report):
            self._outbox.add(message)
            return
        if isinstance(message, Started):
            self._executors[executor].note_started(message.at)
        elif isinstance(message, Ready):
            self._performer.note_ready(message, self._now() - self._started_at)
        self.handle(events.Received(executor, message))

    def _on_sent(self, executor: int, key: str, size: int) -> None:
        self._executors[executor].send(WindowUpdate(key, size))
        self._flush()

    def _flush(self) -> None:
        for executor in self._executors:
            executor.flush()

    # ---------------------------------------------------------------- tasks

    def _spawn(self, running: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(self._guard(running, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, running: Coroutine[None, None, None], name: str) -> None:
        """Drain the worker if one of its tasks fails."""
        try:
            await running
        except Exception:
            log.exception("worker.crashed", extra={"task": name})
            self.handle(events.Drain(1, f"an internal error in {name}"))

    async def _take_jobs(self) -> None:
        await self._heartbeats.answered.wait()
        await self._taker.run()

    async def _replay_spool(self) -> None:
        await self._heartbeats.answered.wait()
        await self._replay.run()

    async def _watch_freezes(self) -> None:
        while True:
            await asyncio.sleep(self._watch.interval_s)
            self._check_freeze()

    def _check_freeze(self) -> None:
        away_s = self._watch.check()
        if away_s:
            self.handle(events.Thawed(away_s))

    def _reconnect(self, effect: effects.Reconnect) -> None:
        """Let reports wait for the reply to a heartbeat; without one, the circuit breaker lets a report through."""
        log.warning("worker.thawed", extra={"away_s": round(effect.away_s, 3)})
        self._breaker.suspend()
        self._link.reset()
        self._heartbeats.hasten()

    async def _report_unhealthy(self, effect: effects.ReportUnhealthy) -> None:
        """Report once, because the worker exits with or without a reply."""
        try:
            async with asyncio.timeout(UNHEALTHY_S):
                await self._link.report_unhealthy(effect.check, effect.reason)
        except (TimeoutError, LinkDown, LinkRefused) as error:
            log.warning("health.unreported", extra={"error": str(error)})

    # ---------------------------------------------------------------- the end

    def _on_signal(self) -> None:
        if self._signaled:
            log.warning("worker.forced_exit", extra={"reason": "a second signal"})
            self._code = self._code or 1
            self._forced.set()
            self.handle(events.GraceOver())
        self._signaled = True
        self.handle(events.Drain(0, "a signal"))

    def _announce_drain(self, effect: effects.AnnounceDrain) -> None:
        if effect.code:
            log.error("worker.failed", extra={"reason": effect.reason})
        log.info("worker.draining", extra={"reason": effect.reason})
        self._draining = True
        self._code = effect.code
        self._grace_ends_at = self._now() + self._settings.grace_s

    async def _shut_down(self) -> None:
        """Shut down after `Exit`, when no job runs."""
        taking = [task for task in self._tasks if task.get_name() == TAKING]
        reporting = [task for task in self._tasks if task.get_name() == UNHEALTHY]
        for task in taking:
            task.cancel()
        min_end = self._now() + MIN_SHUTDOWN_S
        deadline = max(self._grace_ends_at, min_end) if self._breaker.is_accepting else min_end
        exit_timeout_s = CUT_OFF_S if self._cut_off else MIN_SHUTDOWN_S
        await self._until(self._outbox.wait_files(), deadline)
        shutdowns = [asyncio.create_task(executor.shutdown(exit_timeout_s)) for executor in self._executors]
        await asyncio.gather(*taking, return_exceptions=True)
        await self._until(self._outbox.wait_empty(), deadline)
        await self._until(self._releaser.wait_empty(), deadline)
        await self._outbox.spool_all()
        if self._forced.is_set():
            for executor in self._executors:
                executor.kill("the worker was forced to exit")
        await asyncio.gather(*shutdowns, *reporting)

    async def _until(self, waiting: Coroutine[None, None, object], deadline: float) -> None:
        """Wait until the deadline at most, and not at all after a forced exit."""
        waits = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._forced.wait())]
        left_s = max(0.0, deadline - self._now())
        await asyncio.wait(waits, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _new_dispatcher(settings: WorkerSettings, executors: int, on_refresh: OnRefresh) -> Dispatcher:
    return Dispatcher(
        executors=executors,
        prefetch=PrefetchEstimator(prefetch_s=settings.prefetch_s, prefetch_jobs=settings.prefetch_jobs),
        grace_s=settings.grace_s,
        stop_grace_s=settings.stop_grace_s,
        load_timeout_s=settings.load_timeout_s,
        on_refresh=on_refresh,
    )
