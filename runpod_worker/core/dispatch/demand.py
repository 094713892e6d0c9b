"""How many jobs to take, and when a job must not wait in this worker: prefetch for all executors, and open takes.

A job waits behind running jobs only while these run no longer than recent jobs did (core/prefetch.py). After that it is
revoked, and a take that could return another job is withdrawn, because another worker may be free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runpod_worker.core.dispatch.state import ExecutorState, HeldJob
from runpod_worker.core.dispatch.values import TakeRequest
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.core.protocol import MIB

MAX_TAKE_JOBS = 100
"""A take requests no more jobs than this (docs/extensions.md)."""

MAX_PREFETCH_BYTES = 32 * MIB
"""Prefetch no more jobs than fit into this, judging by the size of recent jobs."""

SIZE_DECAY = 0.9
"""The size of the largest recent body is multiplied by this after each smaller body."""


@dataclass(slots=True)
class _OpenTake:
    max_jobs: int
    is_poll: bool


class Demand:
    """Computes demand from the open takes and the executors."""

    def __init__(self, executors: Sequence[ExecutorState], prefetch: PrefetchEstimator) -> None:
        self._executors = executors
        self._prefetch = prefetch
        self._takes: dict[str, _OpenTake] = {}
        self._polls = 0
        """The number of open takes that are long polls."""
        self._expected = 0
        """The number of jobs that the open takes may return."""
        self._job_bytes = 1.0
        """The estimated size of a job, from recent jobs."""

    # ---------------------------------------------------------------- takes

    def open_take(self, request: TakeRequest, is_poll: bool) -> None:
        """Count the jobs that the take may return. `is_poll`: the take is a long poll."""
        self._takes[request.id] = _OpenTake(request.max_jobs, is_poll)
        self._polls += is_poll
        self._expected += request.max_jobs

    def close_take(self, take_id: str) -> None:
        """Stop counting a take that was answered or lost."""
        take = self._takes.pop(take_id, None)
        if take is not None:
            self._expected -= take.max_jobs
            self._polls -= take.is_poll

    def withdraw_polls(self) -> list[str]:
        """Return the ids of open long polls, each only once."""
        polls = [take_id for take_id, take in self._takes.items() if take.is_poll]
        for take_id in polls:
            self._takes[take_id].is_poll = False
        self._polls = 0
        return polls

    def weigh(self, size: int) -> None:
        """Record the size of a job."""
        self._job_bytes = max(size, self._job_bytes * SIZE_DECAY)

    # ---------------------------------------------------------------- how many, and when

    def wanted(self, now: float) -> int:
        """Return the number of jobs that the next take should request."""
        wanted = free = held = 0
        for executor in self._executors:
            if executor.can_run:
                free_slots = executor.free
                wanted += self._prefetch.jobs_wanted(free_slots, executor.elapsed(now))
                free += free_slots
                held += len(executor.waiting)
        fit = max(free, 1, int(MAX_PREFETCH_BYTES / self._job_bytes))
        return max(0, min(min(wanted, fit) - held - self._expected, MAX_TAKE_JOBS))

    def room(self, executor: ExecutorState, now: float) -> int:
        """Return the number of further jobs that this executor should hold."""
        return self._prefetch.jobs_wanted(executor.free, executor.elapsed(now)) - len(executor.waiting)

    @property
    def is_taking(self) -> bool:
        """Whether a take is open; its reply is an event."""
        return bool(self._takes)

    def due_at(self, now: float) -> float:
        """Return when `wanted` may rise without an event, while no take is open."""
        times = [self._prefetch.due_in(executor.elapsed(now)) for executor in self._executors if executor.can_run]
        return now + min((time for time in times if time is not None), default=math.inf)

    # ---------------------------------------------------------------- behind long jobs

    def blocked_at(self, executor: ExecutorState) -> float:
        """Return when the waiting jobs of an executor count as blocked behind long jobs."""
        if not executor.waiting or executor.free or not any(map(_is_revocable, executor.waiting.values())):
            return math.inf
        return self._outliers_at([executor])

    def blocked(self, executor: ExecutorState, now: float) -> list[HeldJob]:
        """Return the jobs that are blocked behind long jobs now."""
        if self.blocked_at(executor) > now:
            return []
        return [job for job in executor.waiting.values() if _is_revocable(job)]

    def withdraw_at(self) -> float:
        """Return when a job from the open long poll would be blocked behind long jobs."""
        if not self._polls or any(executor.free > len(executor.waiting) for executor in self._executors):
            return math.inf
        return self._outliers_at(self._executors)

    def _outliers_at(self, executors: Sequence[ExecutorState]) -> float:
        """When every running job will have run longer than recent jobs did."""
        starts = [job.started_at for executor in executors for job in executor.running.values()]
        return max((at + self._prefetch.outlier_s for at in starts if at is not None), default=math.inf)


def _is_revocable(job: HeldJob) -> bool:
    return not job.is_revoking and job.stop is None
