"""The workers that sent a request lately: for /health, for stops, and so that a retired worker gets no jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from runpod_worker.service.queue.index import JobIndex
from runpod_worker.service.queue.waiters import Waiters

RETIRED_SILENCE_S = 5.0
"""A request from a retired worker after this much silence comes from a new process, because a process that continues
polls without pause."""


class ProcessMarker(Enum):
    """A header that a running process always sends. A request without it comes from a new process."""

    NONE = "none"
    REQUEST_ID = "request id"
    """With each take, after `stopPod`."""
    EXTENSIONS = "extensions"
    """With each ping, after the first reply."""


@dataclass(slots=True)
class Worker:
    """A worker of an endpoint."""

    seen_at: float
    ready: bool = False
    """It has sent a take, so its model is loaded."""
    unhealthy: bool = False
    retired: bool = False
    process_marker: ProcessMarker = ProcessMarker.NONE
    """How to distinguish a new process from the retired one."""
    polls: int = 0
    """Its open job-take and job-stop requests."""
    stops: dict[str, int] = field(default_factory=dict)
    """For each job to stop, its attempt, until job-stop returns it."""


class Workers:
    """The known workers. No rule about jobs depends on them. After a restart their next requests add them again."""

    def __init__(self, index: JobIndex, now: Callable[[], float]) -> None:
        self._index = index
        self._now = now
        self._known: dict[tuple[str, str], Worker] = {}
        self.waiters: Waiters[bool, None] = Waiters()
        """Job-stops, and the takes of retired workers."""

    def touch(self, endpoint: str, worker: str) -> Worker:
        """Record a request of the worker."""
        now = self._now()
        known = self._known.get((endpoint, worker))
        if known is None:
            known = self._known[endpoint, worker] = Worker(seen_at=now, stops=self._pending_stops(endpoint, worker))
        elif known.retired and not known.polls and now - known.seen_at > RETIRED_SILENCE_S:
            known.retired = False
        known.seen_at = now
        return known

    def begin_take(self, endpoint: str, worker: str, *, has_request_id: bool) -> Worker:
        """Record an open take. The caller decrements `polls` at its end, and gives no job to a retired worker."""
        known = self.touch(endpoint, worker)
        known.ready, known.unhealthy = True, False
        if known.process_marker is ProcessMarker.REQUEST_ID and not has_request_id:
            known.retired = False
        known.polls += 1
        return known

    def heartbeat(self, endpoint: str, worker: str, *, unhealthy: bool, has_extensions: bool) -> None:
        """Record a ping."""
        known = self.touch(endpoint, worker)
        known.unhealthy = unhealthy
        if known.process_marker is ProcessMarker.EXTENSIONS and not has_extensions:
            known.retired = False  # a process sends its first ping before it knows the extensions

    def retire(self, endpoint: str, worker: str, process_marker: ProcessMarker) -> None:
        """Assign no more jobs to this worker until a new process starts under its name (`stopPod`).

        Some workers exit after that, others continue to poll (protocol B.6).
        """
        known = self.touch(endpoint, worker)
        known.retired, known.process_marker = True, process_marker

    def stop(self, endpoint: str, worker: str, job_id: str, attempt: int) -> None:
        """Stop an attempt: answer the worker's open job-stop, or its next one."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops[job_id] = attempt
            self.waiters.notify(f"{endpoint}/{worker}", True)

    def drop_stop(self, endpoint: str, worker: str, job_id: str) -> None:
        """Drop an earlier stop of a job that the worker has taken again."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops.pop(job_id, None)

    async def wait_stops(self, endpoint: str, worker: str, timeout_s: float) -> dict[str, int]:
        """Wait for jobs that the worker has to stop. Return their attempts, each once; empty after `timeout_s`."""
        known = self.touch(endpoint, worker)
        if not known.stops:
            known.polls += 1
            try:
                await self.waiters.wait(f"{endpoint}/{worker}", timeout_s)
            finally:
                known.polls -= 1
                known.seen_at = self._now()
        stops = dict(sorted(known.stops.items()))
        known.stops.clear()
        return stops

    async def idle(self, timeout_s: float) -> None:
        """Keep the take of a retired worker open."""
        await self.waiters.wait("retired", timeout_s)

    def counts(self, endpoint: str) -> dict[str, int]:
        """Return the `workers` part of /health."""
        counts = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0)
        for (of, name), known in self._known.items():
            if of == endpoint:
                counts[self._state(endpoint, name, known)] += 1
        counts["ready"] = counts["idle"]
        return counts

    def prune(self, silent_since: float) -> None:
        """Drop the workers without an open request whose last request was before this time."""
        silent = [key for key, known in self._known.items() if known.seen_at < silent_since and not known.polls]
        for key in silent:
            del self._known[key]

    def _state(self, endpoint: str, name: str, known: Worker) -> str:
        if known.unhealthy:
            return "unhealthy"
        if any(job.endpoint == endpoint for job in self._index.leased(name)):
            return "running"
        return "idle" if known.ready else "initializing"

    def _pending_stops(self, endpoint: str, worker: str) -> dict[str, int]:
        """The attempts to stop that were pending when the service restarted."""
        return {job.id: job.attempt for job in self._index.leased(worker) if job.stop and job.endpoint == endpoint}
