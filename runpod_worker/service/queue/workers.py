"""The workers that were heard of lately: for /health, for stops, and to keep jobs from a worker that is going away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runpod_worker.service.journal.port import Store
from runpod_worker.service.queue.waiters import Bells

RETIRED_SILENCE_S = 5.0
"""A retired worker that was silent for so long has been restarted: a worker that goes on polls without a pause."""


@dataclass(slots=True)
class Worker:
    """What is known of one worker of one endpoint."""

    seen_at: float
    ready: bool = False
    """It has asked for a job: the model is loaded."""
    unhealthy: bool = False
    retired: bool = False
    sign: str = ""
    """A header that the retired process sends with each request: one without it comes from a new process."""
    polls: int = 0
    """Its job-take and job-stop requests that are held right now."""
    stops: dict[str, int] = field(default_factory=dict)
    """Jobs it has to stop and was not told of yet, each with the attempt that is meant."""


class Workers:
    """Who is there. Nothing here is needed for correctness: after a restart it fills itself again."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._known: dict[tuple[str, str], Worker] = {}
        self._stop_bells: Bells[bool] = Bells()
        self._idle_bells: Bells[bool] = Bells()

    def heard(self, endpoint: str, worker: str) -> Worker:
        """Note that the worker is there."""
        now = self._now()
        known = self._known.get((endpoint, worker))
        if known is None:
            known = self._known[endpoint, worker] = Worker(seen_at=now, stops=self._unstopped(endpoint, worker))
        elif known.retired and not known.polls and now - known.seen_at > RETIRED_SILENCE_S:
            known.retired = False
        known.seen_at = now
        return known

    def retire(self, endpoint: str, worker: str, sign: str = "") -> None:
        """Hand no more jobs to this worker until a new process comes up under its name (`stopPod`).

        Some workers leave after that, others go on polling (protocol B.6). `sign`: a header by which to tell.
        """
        known = self.heard(endpoint, worker)
        known.retired, known.sign = True, sign

    def stop(self, endpoint: str, worker: str, job_id: str, attempt: int) -> None:
        """Tell the worker to give up this attempt of a job: at once if it listens, else when it asks."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops[job_id] = attempt
            self._stop_bells.ring(f"{endpoint}/{worker}", True)

    def took(self, endpoint: str, worker: str, job_id: str) -> None:
        """The worker has (again) a right to this job: an old stop does not count any more."""
        known = self._known.get((endpoint, worker))
        if known is not None:
            known.stops.pop(job_id, None)

    async def stops(self, endpoint: str, worker: str, hold_s: float) -> dict[str, int]:
        """The jobs the worker has to stop, with their attempts, each told once; empty: none came within `hold_s`."""
        known = self.heard(endpoint, worker)
        if not known.stops:
            known.polls += 1
            try:
                await self._stop_bells.wait(f"{endpoint}/{worker}", hold_s)
            finally:
                known.polls -= 1
                known.seen_at = self._now()
        told = dict(sorted(known.stops.items()))
        known.stops.clear()
        return told

    async def idle(self, endpoint: str, worker: str, hold_s: float) -> None:
        """Hold the poll of a worker that gets no jobs."""
        await self._idle_bells.wait(f"{endpoint}/{worker}", hold_s)

    def counts(self, endpoint: str) -> dict[str, int]:
        """The `workers` part of /health."""
        counts = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0)
        for (of, name), known in self._known.items():
            if of == endpoint:
                counts[self._state(name, known)] += 1
        counts["ready"] = counts["idle"]
        return counts

    def _state(self, name: str, known: Worker) -> str:
        if known.unhealthy:
            return "unhealthy"
        if self._store.leased(name):
            return "running"
        return "idle" if known.ready else "initializing"

    def prune(self, silent_since: float) -> None:
        """Forget the workers that hold no poll and were last heard of before this time."""
        gone = [key for key, known in self._known.items() if known.seen_at < silent_since and not known.polls]
        for key in gone:
            del self._known[key]

    def silence(self) -> None:
        """Answer every held job-stop."""
        self._stop_bells.silence()
        self._idle_bells.silence()

    def _unstopped(self, endpoint: str, worker: str) -> dict[str, int]:
        """Jobs that were being stopped when the service itself was restarted."""
        return {job.id: job.attempt for job in self._store.leased(worker) if job.stop and job.endpoint == endpoint}
