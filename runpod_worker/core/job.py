"""A job as a value: its status, policy, lease and times. `core.lifecycle` holds the rules that change it."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR

EXECUTION_TIMEOUT_MS = 600_000
"""The default of `Policy.execution_timeout_ms`."""

TTL_MS = 86_400_000
"""The default of `Policy.ttl_ms`."""


class Status(StrEnum):
    """The status of a job, with the platform's names."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


class StopReason(StrEnum):
    """Why a running job is being stopped; decides its final status."""

    CANCELLED = "cancelled"
    EXECUTION_TIMEOUT = EXECUTION_TIMEOUT_ERROR
    TTL = "ttl exceeded"


class FailureKind(StrEnum):
    """Why a job is FAILED. `Job.error` is text for people; rules and replies look at this."""

    HANDLER_ERROR = "handler_error"
    """The worker reported an error."""
    EXECUTION_TIMEOUT = "execution_timeout"
    """The attempt ran longer than the policy's executionTimeout."""
    WORKER_LOST = "worker_lost"
    """The last of the job's attempts ended with a silent worker."""
    STOPPED = "stopped"
    """The worker stopped the job without being asked."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's limits in milliseconds, and whether the job waits behind jobs of normal priority."""

    execution_timeout_ms: int = EXECUTION_TIMEOUT_MS
    ttl_ms: int = TTL_MS
    low_priority: bool = False


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's right to one attempt, until a time.

    `take` is the id of the take that assigned the job, so that a worker can release a job it never received.
    `confirms`: the worker reports when it has stopped a job. For any other worker, a stop makes the job final at once.
    """

    worker: str
    until: float
    take: str = ""
    confirms: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request to an endpoint, for its whole life. Its bodies (input, output, chunks) are kept elsewhere.

    Times are seconds since the epoch by the service's clock. `version` grows by one with each event. `failure` is set
    exactly while the status is FAILED; `error` is its text.
    """

    id: str
    endpoint: str
    created_at: float
    queued_at: float
    status: Status = Status.IN_QUEUE
    policy: Policy = Policy()
    webhook: str | None = None
    sync: bool = False
    attempt: int = 0
    """The number of the latest attempt. A retry goes on counting, so a late report of an earlier run is stale."""
    earlier_attempts: int = 0
    """The attempts before the latest retry."""
    retries: int = 0
    lease: Lease | None = None
    stop: StopReason | None = None
    taken_at: float | None = None
    ended_at: float | None = None
    worker: str | None = None
    gpu: str | None = None
    error: str | None = None
    failure: FailureKind | None = None
    version: int = 0

    @property
    def run_attempts(self) -> int:
        """The number of attempts since the latest retry."""
        return self.attempt - self.earlier_attempts

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.ended_at is not None

    @property
    def delay_ms(self) -> int | None:
        """Time in the queue before the latest attempt; None while no worker has taken the job since it was queued."""
        return None if self.taken_at is None else max(0, round((self.taken_at - self.queued_at) * 1000))

    @property
    def execution_ms(self) -> int | None:
        """How long a worker held the final attempt; None if the job has not ended, or never ran."""
        if self.taken_at is None or self.ended_at is None:
            return None
        return max(0, round((self.ended_at - self.taken_at) * 1000))

    @property
    def deadline(self) -> float | None:
        """When the running attempt exceeds its executionTimeout, None unless one is running."""
        if self.taken_at is None or self.lease is None:
            return None
        return self.taken_at + self.policy.execution_timeout_ms / 1000

    @property
    def expires_at(self) -> float:
        """When the ttl, counted from submission, ends."""
        return self.created_at + self.policy.ttl_ms / 1000

    @property
    def due_at(self) -> float | None:
        """The earliest time at which `due` has an event for this job, None once it is final."""
        if self.ended_at is not None:
            return None
        if self.lease is None:
            return self.expires_at
        lapse = math.nextafter(self.lease.until, math.inf)
        if self.stop is not None:
            return lapse
        return min(lapse, self.expires_at, lapse if self.deadline is None else self.deadline)
