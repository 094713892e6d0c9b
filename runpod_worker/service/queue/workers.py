"""The workers that were in touch lately: for /health, for stops, and to keep jobs from a worker that is leaving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from runpod_worker.service.queue.index import JobIndex
from runpod_worker.service.queue.waiters import Waiters

RETIRED_SILENCE_S = 5.0
"""After this silence of a retired worker, its next request comes from a new process: one that goes on polls without a
pause."""


class ProcessMarker(Enum):
    """A header that a process sends with each of some requests: one without it comes from a new process."""

    NONE = "none"
    REQUEST_ID = "request id"
    """With each take, after `stopPod`."""
    EXTENSIONS = "extensions"
    """With each ping, after the first reply."""


@dataclass(slots=True)
class Worker:
    """What is known of one worker of one endpoint."""

    seen_at: float
    ready: bool = False
    """It has asked for a job: the model is loaded."""
    unhealthy: bool = False
    retired: bool = False
    process_marker: ProcessMarker = ProcessMarker.NONE
    """How to tell the retired process from a new one."""
    polls: int = 0
    """Its open job-take and job-stop requests."""
    stops: dict[str, int] = field(default_factory=dict)
    """Jobs it has to stop and was not told of yet, each with the attempt that is meant."""


class Workers:
    """The known workers. Nothing here is needed for correctness: after a restart it fills itself again."""

    def __init__(self, index: JobIndex, now: Callable[[], float]) -> None:
        self._index = index
        self._now = now
        self._known: dict[tuple[str, str], Worker] = {}
        self._stop_waiters: Waiters[bool] = Waiters()
        self._idle_waiters: Waiters[bool] = Waiters()

    def touch(self, endpoint: str, worker: str) -> Worker:
        """Note that the worker is there."""
        now = self._now()
        known = self._known.get((endpoint, worker))
        if known is None:
            known = self._known[endpoint, worker] = Worker(seen_at=now, stops=self._pending_stops(endpoint, worker))
        elif known.retired and not known.polls and now - known.seen_at > RETIRED_SILENCE_S:
            known.retired = False
        known.seen_at = now
        return known

    def begin_take(self, endpoint: str, worker: str, *, has_request_id: bool) -> Worker:
        """Note an open take. The caller counts it down in `polls` when it ends; no job goes to a retired worker."""
        known = self.touch(endpoint, worker)
        known.ready, known.unhealthy = True, False
        if known.process_marker is ProcessMarker.REQUEST_ID and not has_request_id:
            known.retired = False
        known.polls += 1
        return known

    def heartbeat(self, endpoint: str, worker: str, *, unhealthy: bool, has_extensions: bool) -> None:
        """Note a ping."""
        known = self.touch(endpoint, worker)
        known.unhealthy = unhealthy
        if known.process_marker is ProcessMarker.EXTENSIONS and not has_extensions:
            known.retired = False  # the first ping of a process comes before it knows the extensions

    def retire(self, endpoint: str, worker: str, process_marker: ProcessMarker) -> None:
        """Assign no more jobs to this worker until a new process starts under its name (`stopPod`).

        Some workers exit after that, others go on polling (protocol B.6).
        """
        known = self.touch(endpoint, worker)
        known.retired, known.process_marker = True, process_marker

    def stop(self, endpoint: str, worker: str, job_id: str, attempt: int) -> None:
        """Tell the worker to stop this attempt of a job: at once if its job-stop is open, else at the next one."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops[job_id] = attempt
            self._stop_waiters.notify(f"{endpoint}/{worker}", True)

    def drop_stop(self, endpoint: str, worker: str, job_id: str) -> None:
        """The worker has taken this job (again): an earlier stop does not count any more."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops.pop(job_id, None)

    async def wait_stops(self, endpoint: str, worker: str, timeout_s: float) -> dict[str, int]:
        """Return the jobs the worker has to stop, with their attempts, each once; empty if none came in time."""
        known = self.touch(endpoint, worker)
        if not known.stops:
            known.polls += 1
            try:
                await self._stop_waiters.wait(f"{endpoint}/{worker}", timeout_s)
            finally:
                known.polls -= 1
                known.seen_at = self._now()
        stops = dict(sorted(known.stops.items()))
        known.stops.clear()
        return stops

    async def idle(self, endpoint: str, worker: str, timeout_s: float) -> None:
        """Keep open the take of a worker that gets no jobs."""
        await self._idle_waiters.wait(f"{endpoint}/{worker}", timeout_s)

    def counts(self, endpoint: str) -> dict[str, int]:
        """Return the `workers` part of /health."""
        counts = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0)
        for (of, name), known in self._known.items():
            if of == endpoint:
                counts[self._state(name, known)] += 1
        counts["ready"] = counts["idle"]
        return counts

    def prune(self, silent_since: float) -> None:
        """Forget the workers without an open request that were last in touch before this time."""
        silent = [key for key, known in self._known.items() if known.seen_at < silent_since and not known.polls]
        for key in silent:
            del self._known[key]

    def close(self) -> None:
        """Answer every open job-stop."""
        self._stop_waiters.close()
        self._idle_waiters.close()

    def _state(self, name: str, known: Worker) -> str:
        if known.unhealthy:
            return "unhealthy"
        if self._index.leased(name):
            return "running"
        return "idle" if known.ready else "initializing"

    def _pending_stops(self, endpoint: str, worker: str) -> dict[str, int]:
        """Jobs that were being stopped when the service itself was restarted."""
        return {job.id: job.attempt for job in self._index.leased(worker) if job.stop and job.endpoint == endpoint}
