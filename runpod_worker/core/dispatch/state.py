"""The jobs, executors and deadlines of a worker. Only state; the rules are in job_rules.py and dispatcher.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from runpod_worker.core.dispatch.messages import LoadFailed
from runpod_worker.core.dispatch.values import AttemptRef, StopCause

Key = str | int


class Phase(Enum):
    """The phases of a worker, in their order."""

    WORKING = "working"
    DRAINING = "draining"
    EXITING = "exiting"


@dataclass(slots=True, eq=False)
class HeldJob:
    """A job from take to delivery. `key` identifies it to the executor."""

    key: str
    attempt: AttemptRef
    body: bytes
    taken_at: float
    timeout_s: float | None = None
    executor: int | None = None
    """The executor that holds the job; None before and after."""
    had_free_slot: bool = False
    started_at: float | None = None
    has_streamed: bool = False
    stop: StopCause | None = None
    timeout_cause: StopCause = StopCause.TIMEOUT
    """Why to stop the job when its deadline passes."""
    is_revoking: bool = False
    is_reported: bool = False
    executors_lost: int = 0


@dataclass(slots=True, eq=False)
class ExecutorState:
    """An executor and its slots. Jobs start in the order of sending."""

    number: int
    slots: int = 0
    is_ready: bool = False
    is_killed: bool = False
    is_retiring: bool = False
    """It gets no more jobs, and is replaced when it holds none."""
    timeout_s: float | None = None
    refresh: bool = False
    failures: int = 0
    """The number of consecutive processes that ended before they were ready."""
    crashes: int = 0
    """The number of ready processes that ended by themselves since a job ended well."""
    failed_load: LoadFailed | None = None
    waiting: dict[str, HeldJob] = field(default_factory=dict)
    running: dict[str, HeldJob] = field(default_factory=dict)

    @property
    def can_run(self) -> bool:
        """Whether it accepts jobs."""
        return self.is_ready and not self.is_killed and not self.is_retiring

    @property
    def free(self) -> int:
        """The number of slots without a running job."""
        return max(0, self.slots - len(self.running))

    def elapsed(self, now: float) -> list[float]:
        """For how long each running job has run."""
        return [now - job.started_at for job in self.running.values() if job.started_at is not None]

    def start(self, key: str, at: float) -> HeldJob | None:
        """Move a waiting job to a slot."""
        job = self.waiting.pop(key, None)
        if job is not None:
            job.started_at = at
            self.running[key] = job
        return job

    def remove(self, key: str) -> HeldJob | None:
        """Free the job's slot."""
        job = self.running.pop(key, None) or self.waiting.pop(key, None)
        if job is not None:
            job.executor = None
        return job

    def clear(self) -> list[HeldJob]:
        """Free all slots: the process has ended. Return its jobs, oldest first."""
        jobs = [*self.running.values(), *self.waiting.values()]
        for job in jobs:
            job.executor = None
        self.running, self.waiting = {}, {}
        self.slots = 0
        self.is_ready = self.is_killed = self.is_retiring = False
        self.failed_load = None
        return jobs


class Deadlines:
    """One deadline for each key. Setting and clearing take the same time for any number of keys."""

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        self._earliest = math.inf

    @property
    def earliest(self) -> float:
        """A lower bound of all deadlines. After a clear it may be too early; `pop_due` then returns nothing."""
        return self._earliest if self._times else math.inf

    def set(self, key: Key, at: float) -> None:
        """Set or replace the key's deadline."""
        self._times[key] = at
        self._earliest = min(self._earliest, at)

    def get(self, key: Key) -> float:
        """Return the key's deadline, infinity without one."""
        return self._times.get(key, math.inf)

    def clear(self, key: Key) -> None:
        """Remove the key's deadline, if it has one."""
        if self._times.pop(key, None) is not None and not self._times:
            self._earliest = math.inf

    def pop_due(self, now: float) -> list[Key]:
        """Remove and return the keys whose deadline has passed."""
        if now < self._earliest:
            return []
        due = [key for key, at in self._times.items() if at <= now]
        for key in due:
            del self._times[key]
        self._earliest = min(self._times.values(), default=math.inf)
        return due
