"""Every decision of a worker: takes, runs and time. job_rules.py and executor_rules.py have the rules about one job
and about executors and the drain.

Synchronous: each event returns the effects to perform, in order. Executors are named by their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.executor_rules import GRACE, ExecutorRules
from runpod_worker.core.dispatch.messages import (
    Done,
    LoadFailed,
    Ready,
    SlotsChanged,
    Started,
    Terminated,
    ToDispatcher,
)
from runpod_worker.core.dispatch.state import ExecutorState, Phase
from runpod_worker.core.dispatch.values import OnRefresh, StopCause
from runpod_worker.core.prefetch import PrefetchEstimator

MAX_UNDELIVERED = 64
"""Stop taking jobs while this many outcomes, or two per slot if that is more, are undelivered."""


class Dispatcher(ExecutorRules):
    """Decides about every job of a worker, over any number of executors."""

    def __init__(
        self,
        *,
        executors: int,
        prefetch: PrefetchEstimator,
        grace_s: float,
        stop_grace_s: float,
        load_timeout_s: float,
        on_refresh: OnRefresh = OnRefresh.EXIT,
    ) -> None:
        super().__init__(executors, prefetch, grace_s, stop_grace_s, load_timeout_s, on_refresh)
        self._reports_full = False
        self._last_wanted: int | None = None
        """The cached result of `wanted`, valid until the next event."""
        self._rules: dict[type[events.Event], Callable[[Any], None]] = {
            events.WorkerStarted: self._on_worker_started,
            events.Agreed: self._on_agreed,
            events.TakeSent: self._on_take_sent,
            events.Assigned: self._on_assigned,
            events.TakeLost: self._on_take_lost,
            events.Received: self._on_received,
            events.Streamed: self._on_streamed,
            events.ExecutorExited: self._on_executor_exited,
            events.Delivered: self._on_delivered,
            events.ReportsFull: self._on_reports_full,
            events.StopRequested: self._on_stop_requested,
            events.LeaseLost: self._on_lease_lost,
            events.LeasesListed: self._on_leases_listed,
            events.Thawed: self._on_thawed,
            events.Drain: self._on_drain,
            events.GraceOver: self._on_grace_over,
            events.Tick: self._on_tick,
        }
        self._message_rules = self._rules_of_messages()

    def _rules_of_messages(self) -> dict[type[ToDispatcher], Callable[[ExecutorState, Any], None]]:
        return {
            Ready: self._on_ready,
            LoadFailed: self._on_load_failed,
            SlotsChanged: self._on_slots_changed,
            Terminated: self._on_terminated,
            Started: self._on_started,
            Done: self._on_done,
        }

    # ---------------------------------------------------------------- called by the agent

    def handle(self, event: events.Event, now: float) -> list[effects.Effect]:
        """Handle an event, and return the effects to perform, in order."""
        self._now = now
        self._effects = []
        self._last_wanted = None
        self._rules[type(event)](event)
        if self._phase is Phase.DRAINING and not self._has_work:
            self._exit(cut_off=False)
        return self._effects

    def wanted(self, now: float) -> int:
        """Return the number of jobs that the next take should request; 0: send no take now."""
        if self._phase is not Phase.WORKING or self._is_full or self._unassigned:
            wanted = 0
        else:
            wanted = self._demand.wanted(now)
        self._last_wanted = wanted
        return wanted

    def next_deadline(self) -> float | None:
        """Return when to call `handle(Tick())`; None: only after another event."""
        at = min(self._deadlines.earliest, self._demand.withdraw_at())
        if self._can_release:
            for executor in self._executors:
                at = min(at, self._demand.blocked_at(executor))
        if not self._demand.is_taking and self._phase is Phase.WORKING and not self._is_full:
            wanted = self.wanted(self._now) if self._last_wanted is None else self._last_wanted
            if not wanted:
                at = min(at, self._demand.due_at(self._now))
        return None if at == math.inf else max(at, self._now)

    def attempts(self) -> dict[str, int | None]:
        """Return the attempt of each job that waits, runs or is undelivered, by the job's id."""
        return {job_id: job.attempt.number for job_id, job in self._jobs_by_id.items()}

    @property
    def is_busy(self) -> bool:
        """Whether an executor holds a job."""
        return any(executor.running or executor.waiting for executor in self._executors)

    @property
    def _has_work(self) -> bool:
        return bool(self._unassigned) or self.is_busy

    @property
    def _is_full(self) -> bool:
        slots = sum(executor.slots for executor in self._executors)
        return self._reports_full or self._undelivered >= max(MAX_UNDELIVERED, 2 * slots)

    # ---------------------------------------------------------------- takes and reports

    def _on_agreed(self, event: events.Agreed) -> None:
        self._extensions, self._files_url = event.extensions, event.files_url
        self._max_file_bytes = event.max_file_bytes

    def _on_take_sent(self, event: events.TakeSent) -> None:
        self._demand.open_take(event.request, event.is_poll)

    def _on_take_lost(self, event: events.TakeLost) -> None:
        self._demand.close_take(event.take_id)
        if self._can_release:
            self._emit(effects.ReleaseTake(event.take_id))

    def _on_assigned(self, event: events.Assigned) -> None:
        self._demand.close_take(event.take_id)
        for assignment in event.jobs:
            self._demand.weigh(len(assignment.body))
            self._assign(assignment, event.take_id)

    def _on_delivered(self, event: events.Delivered) -> None:
        if event.round_trip_s is not None:
            self._prefetch.add_round_trip(event.round_trip_s)
        job = self._jobs.get(event.key)
        if job is not None and job.is_reported:
            self._undelivered -= 1
            self._remove(job)

    def _on_reports_full(self, event: events.ReportsFull) -> None:
        self._reports_full = event.full

    def _on_stop_requested(self, event: events.StopRequested) -> None:
        self._request_stop(event.attempt)

    def _on_lease_lost(self, event: events.LeaseLost) -> None:
        job = self._jobs.get(event.key)
        if job is not None:
            self._lose_lease(job)

    def _on_leases_listed(self, event: events.LeasesListed) -> None:
        """Stop the jobs that run without a lease, unless they were assigned again since the heartbeat."""
        for job_id in event.attempts.keys() - event.leased:
            job = self._jobs_by_id.get(job_id)
            if job is None or job.is_reported or job.attempt.number != event.attempts[job_id]:
                continue
            if self._unassigned.pop(job.key, None) is not None:
                self._release(job)
            self._lose_lease(job)

    # ---------------------------------------------------------------- runs

    def _on_received(self, event: events.Received) -> None:
        self._message_rules[type(event.message)](self._executors[event.executor], event.message)

    def _on_started(self, executor: ExecutorState, started: Started) -> None:
        job = executor.start(started.key, started.at)
        if job is not None and executor.timeout_s is not None and job.stop is None:
            self._limit(job, started.at + executor.timeout_s, StopCause.HANDLER_TIMEOUT)

    def _on_streamed(self, event: events.Streamed) -> None:
        job = self._jobs.get(event.key)
        if job is not None:
            job.has_streamed = True

    def _on_done(self, executor: ExecutorState, done: Done) -> None:
        job = executor.remove(done.key)
        if job is None:
            return
        self._deadlines.clear(done.key)
        if done.revoked:
            self._end_unfinished(job)
        else:
            if done.error is None:
                executor.crashes = 0
            refresh = done.refresh or executor.refresh
            asks_service = refresh and self._on_refresh is OnRefresh.EXIT  # the service then gives this worker no job
            self._finish(job, done if done.refresh == asks_service else replace(done, refresh=asks_service))
            if refresh:
                self._refresh(executor)
        self._retire_if_free(executor)

    # ---------------------------------------------------------------- time

    def _on_tick(self, event: events.Tick) -> None:
        for key in self._deadlines.pop_due(self._now):
            if key == GRACE:
                self._cut_off()
            elif isinstance(key, int):
                self._load_overdue(self._executors[key])
            else:
                self._job_overdue(key)
        if self._can_release:
            for executor in self._executors:
                for job in self._demand.blocked(executor, self._now):
                    self._revoke(executor, job.key, is_blocked=True)
        if self._demand.withdraw_at() <= self._now:
            self._withdraw_polls()

    def _job_overdue(self, key: str) -> None:
        job = self._jobs.get(key)
        if job is None or job.executor is None:
            return
        if job.stop is None:
            self._stop(job, job.timeout_cause)
        else:
            seconds = f"{self._stop_grace_s:g}"
            reason = f"job {job.attempt.job_id} did not stop within {seconds} s: {job.stop}"
            self._kill(self._executors[job.executor], reason)
