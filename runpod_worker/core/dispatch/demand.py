"""How many jobs to take, and when a job must not wait here: the prefetch of all executors and the open takes.

A job waits behind running ones only while they run no longer than recent jobs did (core/prefetch.py). After that it is
revoked, and the take that would bring one more is withdrawn: another worker may be free.
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
"""Ask for no more jobs in one take (docs/extensions.md)."""

MAX_PREFETCH_BYTES = 32 * MIB
"""Prefetch no more jobs than fit into this, by the size of recent ones."""

SIZE_DECAY = 0.9
"""How much of the largest recent body still counts after each smaller one."""


@dataclass(slots=True)
class _OpenTake:
    max_jobs: int
    is_poll: bool


class Demand:
    """Knows the open takes; looks at the executors."""

    def __init__(self, executors: Sequence[ExecutorState], prefetch: PrefetchEstimator) -> None:
        self._executors = executors
        self._prefetch = prefetch
        self._takes: dict[str, _OpenTake] = {}
        self._polls = 0
        """How many of them the service may hold."""
        self._expected = 0
        """How many jobs the open takes may return."""
        self._job_bytes = 1.0
        """The size of a job, by what recent ones weighed."""

    # ---------------------------------------------------------------- takes

    def open_take(self, request: TakeRequest, is_poll: bool) -> None:
        """Count the jobs that the take may return. `is_poll`: the service may hold it."""
        self._takes[request.id] = _OpenTake(request.max_jobs, is_poll)
        self._polls += is_poll
        self._expected += request.max_jobs

    def close_take(self, take_id: str) -> None:
        """Stop counting the take: it was answered or lost."""
        take = self._takes.pop(take_id, None)
        if take is not None:
            self._expected -= take.max_jobs
            self._polls -= take.is_poll

    def withdraw_polls(self) -> list[str]:
        """Return the ids of the takes that the service holds, each only once."""
        polls = [take_id for take_id, take in self._takes.items() if take.is_poll]
        for take_id in polls:
            self._takes[take_id].is_poll = False
        self._polls = 0
        return polls

    def weigh(self, size: int) -> None:
        """Learn the size of a job."""
        self._job_bytes = max(size, self._job_bytes * SIZE_DECAY)

    # ---------------------------------------------------------------- how many, and when

    def wanted(self, now: float) -> int:
        """Return how many jobs the next take should ask for."""
        wanted = free = held = 0
        for executor in self._executors:
            if executor.can_run:
                wanted += self._prefetch.jobs_wanted(executor.free, executor.elapsed(now))
                free += executor.free
                held += len(executor.waiting)
        fit = max(free, 1, int(MAX_PREFETCH_BYTES / self._job_bytes))
        return max(0, min(min(wanted, fit) - held - self._expected, MAX_TAKE_JOBS))

    def room(self, executor: ExecutorState, now: float) -> int:
        """Return how many more jobs this executor should hold."""
        return self._prefetch.jobs_wanted(executor.free, executor.elapsed(now)) - len(executor.waiting)

    def due_at(self, now: float) -> float:
        """Return when `wanted` may rise by itself. Infinity while a take is open: its reply comes first."""
        if self._takes:
            return math.inf
        times = [self._prefetch.due_in(executor.elapsed(now)) for executor in self._executors if executor.can_run]
        return now + min((time for time in times if time is not None), default=math.inf)

    # ---------------------------------------------------------------- behind long jobs

    def blocked_at(self, executor: ExecutorState) -> float:
        """Return when the waiting jobs of an executor turn out to wait behind long ones."""
        if not executor.waiting or executor.free or not any(map(_is_revocable, executor.waiting.values())):
            return math.inf
        return self._outliers_at([executor])

    def blocked(self, executor: ExecutorState, now: float) -> list[HeldJob]:
        """Return the jobs that wait behind long ones now."""
        if self.blocked_at(executor) > now:
            return []
        return [job for job in executor.waiting.values() if _is_revocable(job)]

    def withdraw_at(self) -> float:
        """Return when the take that the service holds would bring a job that waits behind long ones."""
        if not self._polls or any(executor.free > len(executor.waiting) for executor in self._executors):
            return math.inf
        return self._outliers_at(self._executors)

    def _outliers_at(self, executors: Sequence[ExecutorState]) -> float:
        """When every running job has run longer than recent ones did."""
        starts = [job.started_at for executor in executors for job in executor.running.values()]
        return max((at + self._prefetch.outlier_s for at in starts if at is not None), default=math.inf)


def _is_revocable(job: HeldJob) -> bool:
    return not job.is_revoking and job.stop is None
