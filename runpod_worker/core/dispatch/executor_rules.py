"""The rules about executors: their start, their exit, and the drain of the worker."""

from __future__ import annotations

import math

from msgspec.structs import replace

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.job_rules import JobRules
from runpod_worker.core.dispatch.messages import LoadFailed, Ready, Revoke, SlotsChanged, Terminated
from runpod_worker.core.dispatch.state import ExecutorState, Phase
from runpod_worker.core.dispatch.values import ExitReport, OnRefresh
from runpod_worker.core.prefetch import PrefetchEstimator

MAX_START_FAILURES = 3
"""Give up after this many consecutive executor failures during start-up."""

RESTART_DELAY = Backoff(base_s=0.5, cap_s=5.0)

PLATFORM_LEASE_S = 40.0
"""After a longer freeze the leases have expired on the platform (protocol B.9)."""

GRACE = "grace"
"""The key of the drain's deadline. Jobs' deadlines use the job's key, and executors' use the executor's number."""


class ExecutorRules(JobRules):
    """The rules about executors and the drain, for the dispatcher."""

    def __init__(
        self,
        executors: int,
        prefetch: PrefetchEstimator,
        grace_s: float,
        stop_grace_s: float,
        load_timeout_s: float,
        on_refresh: OnRefresh,
    ) -> None:
        super().__init__(executors=executors, prefetch=prefetch, stop_grace_s=stop_grace_s)
        self._grace_s = grace_s
        self._load_timeout_s = load_timeout_s
        self._on_refresh = on_refresh

    # ---------------------------------------------------------------- executors

    def _on_worker_started(self, event: events.WorkerStarted) -> None:
        for executor in self._executors:
            self._start(executor)

    def _start(self, executor: ExecutorState, exited: str | None = None) -> None:
        failures = max(executor.failures, executor.crashes - 1)
        delay_s = RESTART_DELAY.ceiling(failures - 1) if failures > 0 else 0.0
        self._emit(effects.StartExecutor(executor.number, delay_s, exited))
        self._deadlines.set(executor.number, self._now + delay_s + self._load_timeout_s)

    def _on_ready(self, executor: ExecutorState, ready: Ready) -> None:
        executor.is_ready, executor.slots = True, ready.slots
        executor.timeout_s, executor.refresh = ready.timeout_s, ready.refresh
        self._deadlines.clear(executor.number)
        unassigned = list(self._unassigned.values())
        self._unassigned.clear()
        for job in unassigned:
            self._place(job)

    def _on_load_failed(self, executor: ExecutorState, failed: LoadFailed) -> None:
        executor.failed_load = failed

    def _on_slots_changed(self, executor: ExecutorState, changed: SlotsChanged) -> None:
        executor.slots = changed.slots

    def _on_terminated(self, executor: ExecutorState, terminated: Terminated) -> None:
        self._drain(0, "the handler's process got SIGTERM")

    def _kill(self, executor: ExecutorState, reason: str) -> None:
        if not executor.is_killed:
            executor.is_killed = True
            self._emit(effects.Kill(executor.number, reason))

    def _refresh(self, executor: ExecutorState) -> None:
        """The handler asked for a new worker."""
        if self._on_refresh is OnRefresh.EXIT:
            self._drain(0, "the handler asked for a new worker")
        elif self._on_refresh is OnRefresh.REPLACE:
            executor.is_retiring = True
            if self._can_release:
                self._withdraw_polls()
                for key in executor.waiting:
                    self._revoke(executor, key, is_blocked=False)

    def _retire_if_free(self, executor: ExecutorState) -> None:
        """Replace an executor that is retiring, once it holds no job."""
        if executor.is_retiring and not executor.running and not executor.waiting:
            self._emit(effects.Retire(executor.number))

    def _on_executor_exited(self, event: events.ExecutorExited) -> None:
        executor, exited = self._executors[event.executor], event.report
        self._deadlines.clear(executor.number)
        executor.failures = 0 if executor.is_ready else executor.failures + 1
        if executor.is_ready and exited.killed_for is None and not executor.is_retiring:
            executor.crashes += 1
        failed_load = executor.failed_load
        if executor.slots > 1:  # nobody knows whose output it is, and one caller must not see another's
            exited = replace(exited, last_lines="")
        for job in executor.clear():
            self._deadlines.clear(job.key)
            self._lose_executor(job, exited)
        if failed_load is not None and failed_load.check is not None:
            self._emit(effects.ReportUnhealthy(failed_load.check, failed_load.reason))
        if self._phase is not Phase.WORKING:
            return
        reason = self._reason_to_give_up(executor, exited, failed_load)
        if reason is None:
            self._start(executor, exited.killed_for or exited.how)
        else:
            self._drain(1, reason)

    def _reason_to_give_up(
        self, executor: ExecutorState, exited: ExitReport, failed_load: LoadFailed | None
    ) -> str | None:
        if failed_load is not None:
            return f"the model could not be loaded: {failed_load.error}"
        if not exited.can_restart:
            return f"the handler's process {exited.how}"
        if executor.failures and exited.exit_code == 0:
            return "the handler's program ended without worker.start()"
        if executor.failures >= MAX_START_FAILURES:
            return f"the handler's process {exited.how} {executor.failures} times before it was ready"
        return None

    # ---------------------------------------------------------------- the end

    def _on_drain(self, event: events.Drain) -> None:
        self._drain(event.code, event.reason)

    def _drain(self, code: int, reason: str) -> None:
        """Release jobs that have not started. Jobs in an executor run if the service does not support `return`."""
        if self._phase is not Phase.WORKING:
            return
        self._phase = Phase.DRAINING
        self._emit(effects.AnnounceDrain(code, reason))
        self._deadlines.set(GRACE, self._now + self._grace_s)
        self._withdraw_polls()
        self._release_waiting(revokes=self._can_release)

    def _release_waiting(self, *, revokes: bool) -> None:
        """Release the jobs without an executor. With `revokes`, executors forget those that have not started."""
        unassigned = list(self._unassigned.values())
        self._unassigned.clear()
        for job in unassigned:
            self._release(job)
        for executor in self._executors:
            for job in list(executor.waiting.values()) if revokes else ():
                self._revoke(executor, job.key, is_blocked=False)

    def _on_thawed(self, event: events.Thawed) -> None:
        """Release the jobs that have not started: others may be free. Jobs that run go on; heartbeats list leases."""
        self._emit(effects.Reconnect(event.away_s))
        self._withdraw_polls()
        for executor in self._executors:
            if self._deadlines.get(executor.number) < math.inf:  # it loads, and did not while it was frozen
                self._deadlines.set(executor.number, self._now + self._load_timeout_s)
            for job in executor.running.values():
                if job.stop is not None:
                    self._deadlines.set(job.key, self._now + self._stop_grace_s)
        if self._can_release or event.away_s >= PLATFORM_LEASE_S:
            self._release_waiting(revokes=True)

    def _on_grace_over(self, event: events.GraceOver) -> None:
        self._drain(1, "the grace period has ended")
        if self._phase is not Phase.EXITING:
            self._cut_off()

    def _cut_off(self) -> None:
        """Release the jobs that are still running."""
        jobs = [job for executor in self._executors for job in executor.clear()]
        for job in jobs:
            self._deadlines.clear(job.key)
            self._end_unfinished(job)
        self._exit(cut_off=bool(jobs))

    def _exit(self, *, cut_off: bool) -> None:
        self._phase = Phase.EXITING
        self._deadlines.clear(GRACE)
        for executor in self._executors:
            self._deadlines.clear(executor.number)
        self._emit(effects.Exit(cut_off))

    def _load_overdue(self, executor: ExecutorState) -> None:
        error = f"it took longer than {self._load_timeout_s:g} s (RUNPOD_INIT_TIMEOUT)"
        executor.failed_load = executor.failed_load or LoadFailed(error)
        self._kill(executor, error)

    def _revoke(self, executor: ExecutorState, key: str, *, is_blocked: bool) -> None:
        job = executor.waiting[key]
        if not job.is_revoking and job.stop is None:
            job.is_revoking = True
            self._emit(effects.Send(executor.number, Revoke(key, is_blocked), job.attempt))

    def _withdraw_polls(self) -> None:
        for take_id in self._demand.withdraw_polls():
            self._emit(effects.WithdrawTake(take_id))
