"""Performs the dispatcher's effects on jobs and takes."""

from __future__ import annotations

from collections.abc import Sequence

from runpod_worker.core.dispatch import effects
from runpod_worker.core.dispatch.messages import Ready, Revoke, Run, Stop
from runpod_worker.log import log
from runpod_worker.worker.agent.executors import ExecutorHandle
from runpod_worker.worker.agent.outbox import Outbox
from runpod_worker.worker.agent.outcome import Startup, outcome_body, timings_json
from runpod_worker.worker.agent.releaser import Releaser
from runpod_worker.worker.agent.taker import Taker
from runpod_worker.worker.link.http import HttpLink


class Performer:
    """Passes each effect to the object that performs it."""

    def __init__(
        self,
        link: HttpLink,
        executors: Sequence[ExecutorHandle],
        taker: Taker,
        releaser: Releaser,
        outbox: Outbox,
    ) -> None:
        self._link = link
        self._executors = executors
        self._taker = taker
        self._releaser = releaser
        self._outbox = outbox
        self._startup: Startup | None = None
        self._startup_reported = False

    def note_ready(self, ready: Ready, startup_s: float) -> None:
        """Record the durations of the start, for the first outcome, when the first executor is ready."""
        fields = {"slots": ready.slots, "device": ready.device, "load_s": round(ready.load_s, 3)}
        log.debug("executor.ready", extra=fields)
        if self._startup is None:
            self._startup = Startup(load_s=ready.load_s, startup_s=startup_s)

    def perform(self, effect: effects.Effect) -> None:
        """Perform an effect on a job, a take or an executor."""
        match effect:
            case effects.Send():
                self._send(effect)
            case effects.Report():
                self._report(effect)
            case effects.Kill():
                self._executors[effect.executor].kill(effect.reason)
            case effects.DiscardReports():
                self._outbox.discard(effect.key)
            case effects.Release():
                self._outbox.close(effect.key)
                self._releaser.release(effect.attempt)
            case effects.Forget():
                self._forget(effect)
            case effects.Adopt():
                self._adopt(effect)
            case effects.WithdrawTake():
                self._taker.withdraw(effect.take_id)
            case effects.ReleaseTake():
                self._releaser.release_take(effect.take_id)

    def _send(self, effect: effects.Send) -> None:
        message, job_id = effect.message, effect.attempt.job_id
        match message:
            case Run():
                self._outbox.open(message.key, effect.attempt, effect.executor)
            case Stop():
                log.info("job.stopping", extra={"job": job_id, "reason": str(message.reason)})
            case Revoke(is_blocked=True):
                log.info("prefetch.released", extra={"job": job_id})
        self._executors[effect.executor].send(message)

    def _report(self, effect: effects.Report) -> None:
        outcome, timings = effect.outcome, None
        if effect.stopped_for is not None:
            log.info("job.stopped", extra={"job": effect.attempt.job_id, "reason": str(effect.stopped_for)})
        if outcome.timings is not None and "timings" in self._link.extensions:
            startup = None if self._startup_reported else self._startup
            self._startup_reported = True
            timings = timings_json(outcome.timings, effect.taken_at, startup)
        self._outbox.finish(effect.key, effect.attempt, outcome, outcome_body(outcome, timings))

    def _forget(self, effect: effects.Forget) -> None:
        self._outbox.close(effect.key)
        job_id = effect.attempt.job_id
        if effect.stopped_for is None:
            log.warning("job.dropped", extra={"job": job_id})
        else:
            log.info("job.stopped", extra={"job": job_id, "reason": str(effect.stopped_for)})

    def _adopt(self, effect: effects.Adopt) -> None:
        fields = {"job": effect.attempt.job_id, "held": effect.held, "attempt": effect.attempt.number}
        log.warning("job.adopted", extra=fields)
        self._outbox.adopt(effect.key, effect.attempt)
