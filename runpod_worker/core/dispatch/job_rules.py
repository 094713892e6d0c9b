"""Every rule about a job that the worker holds, from the take to the end.

1. An assigned job ends in exactly one of `Report`, `Release` and `Forget`.
2. The service may assign a held job again. Its run then counts as the new attempt; it does not run twice.
3. When a process ends, the job that ran in it fails. Waiting jobs, and all jobs of a process that the agent killed,
   run elsewhere: in another worker if the service supports `return`, else in the next process.
4. While the worker drains, no job starts that can be released.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from runpod_worker.core.dispatch import effects
from runpod_worker.core.dispatch.demand import Demand
from runpod_worker.core.dispatch.messages import Run, Stop
from runpod_worker.core.dispatch.state import Deadlines, ExecutorState, HeldJob, Phase
from runpod_worker.core.dispatch.values import Assignment, AttemptRef, ExitReport, Outcome, StopCause, Timings
from runpod_worker.core.prefetch import PrefetchEstimator

EXECUTOR_FIRST_S = 0.25
"""The agent notices a timeout this much later than the executor, so that the executor stops the handler first."""

MAX_EXECUTORS_LOST = 2
"""A job fails when this many executors ended before it started, because it is probably the cause."""


class JobRules:
    """The rules about each job, for the dispatcher."""

    def __init__(self, *, executors: int, prefetch: PrefetchEstimator, stop_grace_s: float) -> None:
        self._executors: Sequence[ExecutorState] = [ExecutorState(number) for number in range(executors)]
        self._prefetch = prefetch
        self._stop_grace_s = stop_grace_s
        self._demand = Demand(self._executors, prefetch)
        self._deadlines = Deadlines()
        self._extensions: frozenset[str] = frozenset()
        self._files_url: str | None = None
        self._max_file_bytes: int | None = None
        self._phase = Phase.WORKING
        self._jobs: dict[str, HeldJob] = {}
        self._jobs_by_id: dict[str, HeldJob] = {}
        """The latest attempt of each job; an earlier one may still be stopping."""
        self._unassigned: dict[str, HeldJob] = {}
        """Jobs that wait until an executor is ready."""
        self._undelivered = 0
        self._last_key = 0
        self._now = 0.0
        self._effects: list[effects.Effect] = []

    def _emit(self, effect: effects.Effect) -> None:
        self._effects.append(effect)

    @property
    def _can_release(self) -> bool:
        return "return" in self._extensions

    # ---------------------------------------------------------------- assigned

    def _assign(self, assignment: Assignment, take_id: str) -> None:
        attempt = AttemptRef(assignment.id, assignment.attempt, take_id)
        held = self._jobs_by_id.get(assignment.id)
        if held is not None and self._can_adopt(held, attempt):
            self._emit(effects.Adopt(held.key, attempt, held.attempt.number))
            held.attempt = attempt
            return
        if held is not None:
            self._lose_lease(held)
        self._last_key += 1
        key = f"{assignment.id}#{self._last_key}"
        job = HeldJob(key, attempt, assignment.body, self._now, assignment.timeout_s)
        self._jobs[key] = self._jobs_by_id[assignment.id] = job
        if assignment.error is not None:
            self._report(job, Outcome(error=assignment.error))
        else:
            self._place(job)

    def _can_adopt(self, held: HeldJob, attempt: AttemptRef) -> bool:
        """Whether the run of `held` may count as the new attempt.

        It may not while it is being stopped. After it has streamed it may only if the service does not count attempts:
        else the service has dropped the chunks of the old attempt.
        """
        return held.stop is None and (not held.has_streamed or attempt.number is None)

    def _place(self, job: HeldJob) -> None:
        """Send the job to the executor with the most room, or keep it until an executor is ready."""
        executors = [executor for executor in self._executors if executor.can_run]
        if not self._may_run(job, executors):
            self._release(job)
        elif not executors:
            self._unassigned[job.key] = job
        elif len(executors) == 1:
            self._run(job, executors[0])
        else:
            self._run(job, max(executors, key=self._room))

    def _may_run(self, job: HeldJob, executors: Sequence[ExecutorState]) -> bool:
        """Whether the job may run in this worker. During a drain: only if it cannot be released, and an
        executor is ready."""
        if self._phase is Phase.WORKING:
            return True
        return self._phase is Phase.DRAINING and not self._can_release and bool(executors)

    def _room(self, executor: ExecutorState) -> int:
        return self._demand.room(executor, self._now)

    def _run(self, job: HeldJob, executor: ExecutorState) -> None:
        job.executor, job.started_at = executor.number, None
        job.had_free_slot = executor.free > len(executor.waiting)
        executor.waiting[job.key] = job
        run = Run(job.key, job.body, job.taken_at, job.timeout_s, self._files_url, self._max_file_bytes)
        self._emit(effects.Send(executor.number, run, job.attempt))
        if job.timeout_s is not None:
            self._limit(job, job.taken_at + job.timeout_s, StopCause.TIMEOUT)

    def _limit(self, job: HeldJob, at: float, cause: StopCause) -> None:
        """Stop the job for this cause if its executor does not do so by itself."""
        if at + EXECUTOR_FIRST_S < self._deadlines.get(job.key):
            self._deadlines.set(job.key, at + EXECUTOR_FIRST_S)
            job.timeout_cause = cause

    # ---------------------------------------------------------------- ended

    def _finish(self, job: HeldJob, outcome: Outcome) -> None:
        self._learn(job, outcome.timings)
        if job.stop is not None:
            self._end_stopped(job, outcome.error)
        elif outcome.stopped:
            self._report(job, replace(outcome, stopped=False, error="the handler was stopped"))
        else:
            self._report(job, outcome)

    def _learn(self, job: HeldJob, timings: Timings | None) -> None:
        if job.started_at is None:
            return
        self._prefetch.add_duration((self._now if timings is None else timings.finished) - job.started_at)
        if job.had_free_slot and timings is not None:
            self._prefetch.add_preparation(max(0.0, timings.input_ready - job.taken_at))

    def _report(self, job: HeldJob, outcome: Outcome) -> None:
        job.is_reported = True
        job.body = b""
        self._undelivered += 1
        self._emit(effects.Report(job.key, job.attempt, outcome, job.taken_at, job.stop))

    def _fail(self, job: HeldJob, error: str) -> None:
        self._emit(effects.DiscardReports(job.key))
        self._report(job, Outcome(error=error))

    def _release(self, job: HeldJob) -> None:
        self._remove(job)
        self._emit(effects.Release(job.key, job.attempt) if self._can_release else effects.Forget(job.key, job.attempt))

    def _remove(self, job: HeldJob) -> None:
        del self._jobs[job.key]
        if self._jobs_by_id.get(job.attempt.job_id) is job:  # else it was assigned again meanwhile
            del self._jobs_by_id[job.attempt.job_id]

    # ---------------------------------------------------------------- stopped

    def _request_stop(self, attempt: AttemptRef) -> None:
        """Stop the attempt for the service. A job that is stopping, or whose outcome is in flight, stays as it is."""
        job = self._jobs_by_id.get(attempt.job_id)
        if job is None or attempt.number not in (None, job.attempt.number):
            self._confirm_stop(attempt)
        elif self._unassigned.pop(job.key, None) is not None:
            job.stop = StopCause.SERVICE
            self._end_stopped(job)
        else:
            self._stop(job, StopCause.SERVICE)

    def _confirm_stop(self, attempt: AttemptRef) -> None:
        """Confirm the stop of an unknown or ended attempt, whose slot is free."""
        key = f"{attempt.job_id}#stopped{attempt.number}"
        if "stop" in self._extensions and key not in self._jobs:
            self._jobs[key] = job = HeldJob(key, attempt, b"", self._now)
            self._report(job, Outcome(stopped=True))

    def _lose_lease(self, job: HeldJob) -> None:
        self._stop(job, StopCause.LEASE_LOST)

    def _stop(self, job: HeldJob, cause: StopCause) -> None:
        """Stop the job if it holds a slot. If that takes longer than the stop grace, its executor is killed."""
        if job.executor is None or job.stop is not None:
            return
        job.stop = cause
        self._emit(effects.DiscardReports(job.key))
        self._emit(effects.Send(job.executor, Stop(job.key, cause), job.attempt))
        self._deadlines.set(job.key, self._now + self._stop_grace_s)

    def _end_stopped(self, job: HeldJob, error: str | None = None) -> None:
        """The slot of a stopped job is free."""
        if job.stop in (StopCause.TIMEOUT, StopCause.HANDLER_TIMEOUT):
            self._report(job, Outcome(error=error or str(job.stop)))
        elif job.stop is StopCause.SERVICE and "stop" in self._extensions:
            self._report(job, Outcome(stopped=True))
        else:
            self._remove(job)
            self._emit(effects.Forget(job.key, job.attempt, job.stop))

    def _end_unfinished(self, job: HeldJob) -> None:
        """The slot of a job is free, and it has no outcome."""
        if job.stop is not None:
            self._end_stopped(job)
        else:
            self._release(job)

    # ---------------------------------------------------------------- its executor exited

    def _lose_executor(self, job: HeldJob, exited: ExitReport) -> None:
        """The process of the job's executor ended."""
        if job.stop is not None:
            self._end_stopped(job)
        elif job.started_at is None or exited.killed_for is not None:
            self._run_elsewhere(job, exited)
        else:
            lines = f"; its last lines:\n{exited.last_lines}" if exited.last_lines else ""
            self._fail(job, f"the handler's process {exited.how} while the job ran{lines}")

    def _run_elsewhere(self, job: HeldJob, exited: ExitReport) -> None:
        job.executors_lost += 1
        if job.executors_lost >= MAX_EXECUTORS_LOST:
            self._fail(job, f"the handler's process {exited.how} each time it was given this job")
        elif self._can_release or self._phase is not Phase.WORKING:
            self._release(job)
        elif job.has_streamed:
            self._fail(
                job, f"the handler's process {exited.how}, and the job cannot run again because it has sent chunks"
            )
        else:
            self._place(job)
