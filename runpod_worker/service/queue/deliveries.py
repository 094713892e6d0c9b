"""The webhooks to send, by the time of the next try."""

from __future__ import annotations

import asyncio
import math

from runpod_worker.service.journal.port import Delivery
from runpod_worker.service.queue.heap import LazyHeap

HOLD_S = 300.0
"""`take_due` returns a delivery again after this time, unless its outcome was recorded."""


class Deliveries:
    """The committed deliveries, by job. Holds are lost in a restart."""

    def __init__(self, deliveries: list[Delivery]) -> None:
        self._deliveries: dict[str, Delivery] = {}
        self._due_at: dict[str, float] = {}
        self._due: LazyHeap[float] = LazyHeap(self._due_at.get)
        self.changed = asyncio.Event()
        """Set when a delivery was added or replaced, for a loop that sends them."""
        for delivery in deliveries:
            self.put(delivery)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._deliveries

    def get(self, job_id: str) -> Delivery | None:
        """Return the delivery of this job."""
        return self._deliveries.get(job_id)

    def put(self, delivery: Delivery) -> None:
        """Add or replace the delivery of the job."""
        self._deliveries[delivery.job_id] = delivery
        self._set_due(delivery.job_id, delivery.next_at)
        self.changed.set()

    def drop(self, job_id: str) -> None:
        """Remove the delivery of the job, if it has one."""
        self._deliveries.pop(job_id, None)
        self._due_at.pop(job_id, None)

    def take_due(self, now: float, limit: int, hold_s: float = HOLD_S) -> list[Delivery]:
        """Return the deliveries due at `now`, oldest first, and hold each for `hold_s` or until it changes."""
        due = [self._deliveries[job_id] for job_id in self._due.first_ids(limit, up_to=now)]
        for delivery in due:
            self._set_due(delivery.job_id, max(math.nextafter(now, math.inf), now + hold_s))
        return due

    def next_at(self) -> float | None:
        """Return the time of the next due delivery, or None."""
        first = self._due.first()
        return None if first is None else first[0]

    def _set_due(self, job_id: str, at: float) -> None:
        self._due_at[job_id] = at
        self._due.push(job_id, at, len(self._due_at))
