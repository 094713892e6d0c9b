"""What a worker holds, and in which slots of which executor."""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from runpod_worker.core.dispatch.values import Assignment, AttemptRef
from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR
from runpod_worker.worker.ipc.messages import WindowUpdate

if TYPE_CHECKING:
    from runpod_worker.worker.agent.executors import Bench


class Why(StrEnum):
    """Why a held job is given up; decides what is reported when its slot is free."""

    SERVICE = "the job service asked for it"
    """It was cancelled, or its time is over: the service knows why, and is told when the slot is free."""

    TIMEOUT = EXECUTION_TIMEOUT_ERROR
    """This worker noticed: reported as failed, in the platform's words."""

    HANDLER_TIMEOUT = "the handler's own timeout exceeded"

    LOST = "the attempt is not held any more"
    """Nothing is reported: another worker has it, or it has ended."""


@dataclass(slots=True, eq=False)
class Held:
    """One assignment from take to delivery. `key` names it towards the executor."""

    key: str
    job_id: str
    attempt: int | None
    body: bytes
    taken_at: float
    take: str = ""
    """The name of the hand-over that brought it."""
    handed: int = 1
    """How often the service has handed it over."""
    timeout_s: float | None = None
    had_free_slot: bool = False
    bench: Bench | None = None
    started_at: float | None = None
    stop: Why | None = None
    leaving: bool = False
    """It was asked back un-started (Revoke); the executor's answer says whether that was in time."""
    streamed: bool = False
    runs_lost: int = 0
    timers: list[TimerHandle] = field(default_factory=list)

    @property
    def named(self) -> AttemptRef:
        """How the service knows it."""
        return AttemptRef(self.job_id, self.attempt, self.take)

    def credit(self, size: int) -> None:
        """Tell the executor that so many bytes of the job have left."""
        if self.bench is not None:
            self.bench.post(WindowUpdate(self.key, size))

    def disarm(self) -> None:
        """No timer may fire for it any more."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()


class Slots:
    """The slots of one executor: who runs, who waits. Jobs start in the order they were added."""

    def __init__(self) -> None:
        self.count = 0
        self.jobs: dict[str, Held] = {}
        self._running = 0

    def add(self, job: Held) -> None:
        """The job was sent to the executor."""
        job.had_free_slot = self.free > self.waiting
        self.jobs[job.key] = job

    def started(self, key: str, at: float) -> Held | None:
        """The job's handler was entered."""
        job = self.jobs.get(key)
        if job is not None and job.started_at is None:
            job.started_at = at
            self._running += 1
        return job

    def ended(self, key: str) -> Held | None:
        """The job's slot is free."""
        job = self.jobs.pop(key, None)
        if job is not None:
            self._running -= job.started_at is not None
            job.disarm()
        return job

    @property
    def running(self) -> int:
        """How many jobs' handlers were entered."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many jobs were sent, and not started yet."""
        return len(self.jobs) - self._running

    @property
    def free(self) -> int:
        """How many slots have no running job."""
        return max(0, self.count - self._running)

    def elapsed(self, now: float) -> list[float]:
        """For how long each running job has run."""
        return [now - job.started_at for job in self.jobs.values() if job.started_at is not None]

    def not_started(self) -> Iterator[Held]:
        """The jobs that wait, first come first."""
        return (job for job in self.jobs.values() if job.started_at is None)

    def clear(self) -> list[Held]:
        """Forget everything: the executor is gone. Returns what it held."""
        jobs = list(self.jobs.values())
        for job in jobs:
            job.disarm()
        self.jobs = {}
        self._running = self.count = 0
        return jobs


def assigned(found: Assignment, key: str, now: float, take: str = "") -> Held:
    """The assignment as this worker holds it."""
    return Held(
        key=key,
        job_id=found.id,
        attempt=found.attempt,
        body=found.body,
        taken_at=now,
        take=take,
        timeout_s=found.timeout_s,
    )
