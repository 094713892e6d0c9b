"""A store that lives as long as its process: for tests, for `dev`, and the measure of every other store."""

from __future__ import annotations

import heapq

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job
from runpod_worker.service.journal.port import HOLD_S, Counts, Delivery
from runpod_worker.service.queue.index import JobIndex, Outbox, check_gap, first_delivery, postponed, tally


class MemoryStore:
    """`Store` in plain dictionaries. Nothing survives the process."""

    def __init__(self) -> None:
        self._index = JobIndex()
        self._outbox = Outbox()
        self._requests: dict[str, bytes] = {}
        self._outputs: dict[str, bytes] = {}
        self._chunks: dict[str, list[bytes]] = {}
        self._ended: dict[bool, list[tuple[float, str]]] = {False: [], True: []}

    async def add(self, job: Job, request: bytes, *, durable: bool = True) -> None:
        self._index.add(job)
        self._index.count(job.endpoint, tally(None, job))
        self._requests[job.id] = request
        self._note_end(job)

    def get(self, job_id: str) -> Job | None:
        return self._index.get(job_id)

    async def settled(self, job_id: str) -> Job | None:
        return self._index.get(job_id)

    async def secure(self, job_id: str) -> None:
        return None

    async def request(self, job_id: str) -> bytes | None:
        return self._requests.get(job_id)

    async def output(self, job_id: str) -> bytes | None:
        return self._outputs.get(job_id)

    async def swap(self, old: Job, new: Job, *, output: bytes | None = None, drop_output: bool = False) -> bool:
        current = self._index.get(old.id)
        if current is None or current.version != old.version:
            return False
        self._index.put(new)
        self._index.count(new.endpoint, tally(old, new))
        if drop_output:
            self._outputs.pop(new.id, None)
        if output is not None:
            self._outputs[new.id] = output
        if current.final and not new.final:
            self._outbox.drop(new.id)
            self._chunks.pop(new.id, None)
        if new.final and not current.final:
            self._note_end(new)
        return True

    def head(self, endpoint: str, limit: int) -> list[Job]:
        return self._index.head(endpoint, limit)

    def counts(self, endpoint: str) -> Counts:
        return self._index.counts(endpoint)

    def endpoints(self) -> set[str]:
        return self._index.endpoints()

    def queued(self, endpoint: str) -> list[Job]:
        return self._index.queued(endpoint)

    def leased(self, worker: str) -> list[Job]:
        return self._index.leased(worker)

    def overdue(self, now: float) -> list[Job]:
        return self._index.overdue(now)

    def next_due(self) -> float | None:
        return self._index.next_due()

    async def forget(self, ended_before: float, sync_ended_before: float) -> int:
        return self._forget(self._ended[False], ended_before) + self._forget(self._ended[True], sync_ended_before)

    async def append(self, job_id: str, index: int, chunks: list[bytes]) -> int:
        if job_id not in self._index:
            raise JobNotFound
        kept = self._chunks.setdefault(job_id, [])
        check_gap(job_id, index, len(kept))
        kept.extend(chunks[len(kept) - index :])
        return len(kept)

    def chunks(self, job_id: str, start: int) -> list[bytes]:
        return self._chunks.get(job_id, [])[start:]

    async def deliveries(self, now: float, limit: int, hold_s: float = HOLD_S) -> list[Delivery]:
        return self._outbox.take(now, limit, hold_s)

    def next_delivery(self) -> float | None:
        return self._outbox.next_at()

    async def settle(self, delivery: Delivery) -> None:
        if self._outbox.get(delivery.job_id) == delivery:
            self._outbox.drop(delivery.job_id)

    async def postpone(self, delivery: Delivery, next_at: float) -> None:
        if self._outbox.get(delivery.job_id) == delivery:
            self._outbox.put(postponed(delivery, next_at))

    async def close(self) -> None:
        """Nothing is held that the process does not release by itself."""

    def _note_end(self, job: Job) -> None:
        if job.ended_at is None:
            return
        heapq.heappush(self._ended[job.sync], (job.ended_at, job.id))
        if job.webhook:
            self._outbox.put(first_delivery(job))

    def _forget(self, ended: list[tuple[float, str]], before: float) -> int:
        owed: list[tuple[float, str]] = []
        forgotten = 0
        while ended and ended[0][0] < before:
            at, job_id = heapq.heappop(ended)
            job = self._index.get(job_id)
            if job is None or job.ended_at != at:
                continue  # it was retried since
            if job_id in self._outbox:
                owed.append((at, job_id))
                continue
            self._drop(job_id)
            forgotten += 1
        for item in owed:
            heapq.heappush(ended, item)
        return forgotten

    def _drop(self, job_id: str) -> None:
        self._index.drop(job_id)
        self._requests.pop(job_id, None)
        self._outputs.pop(job_id, None)
        self._chunks.pop(job_id, None)
