"""One way to change a job: apply the event, write it, and tell whoever waits. Rules are in `core.lifecycle`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runpod_worker.core.errors import IllegalTransition, JobNotFound, StaleAttempt
from runpod_worker.core.job import Job, Status
from runpod_worker.core.lifecycle import Event, WorkerEvent, apply
from runpod_worker.service.journal.port import Store
from runpod_worker.service.queue.streams import Streams
from runpod_worker.service.queue.waiters import Alarm, Bells
from runpod_worker.service.queue.workers import Workers


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has just ended, and its output."""

    job: Job
    output: bytes | None


class Jobs:
    """The jobs in the store, with everybody who waits for news of them."""

    def __init__(
        self, store: Store, now: Callable[[], float], workers: Workers, streams: Streams, on_owed: Callable[[], None]
    ) -> None:
        self.store = store
        self.now = now
        self.alarm = Alarm(now)
        self.ended: Bells[Ended] = Bells()
        self.moved: Bells[bool] = Bells()
        """Rung when a job has a new chunk, and when it ends."""
        self._workers = workers
        self._streams = streams
        self._on_owed = on_owed

    async def change(self, job_id: str, event: Event, *, output: bytes | None = None) -> Job:
        """The job after `event`, once that is written; `output` is kept beside it.

        Raises:
            JobNotFound: there is no such job.
            StaleAttempt: a worker reports on an attempt it does not hold.
            IllegalTransition: the job's status does not allow the event.
        """
        while True:
            old = self.store.get(job_id)
            if old is None:
                raise JobNotFound
            new = apply(old, event)
            if new.final and new.stop:
                output = None  # the caller was promised a stopped job
            moved = new.status is not old.status and old.status is not Status.IN_QUEUE
            if await self.store.swap(old, new, output=output, drop_output=moved and output is None):
                self._tell(old, new, event, output)
                return new

    async def try_change(self, job_id: str, event: Event) -> Job | None:
        """As `change`; None when the job has moved on and the event means nothing to it any more."""
        try:
            return await self.change(job_id, event)
        except (JobNotFound, StaleAttempt, IllegalTransition):
            return None

    def _tell(self, old: Job, new: Job, event: Event, output: bytes | None) -> None:
        if new.final:
            self.ended.ring(new.id, Ended(new, output))
            self.moved.ring(new.id, True)
            if new.webhook:
                self._on_owed()
        elif old.final:
            self._streams.forget(new.id)
        elif new.status is Status.IN_QUEUE:
            self._streams.restart(new.id)
        self.alarm.arm(new.due_at)
        if old.lease and not isinstance(event, WorkerEvent) and (new.lease is None or new.stop is not old.stop):
            self._workers.stop(new.endpoint, old.lease.worker, new.id, old.attempt)
