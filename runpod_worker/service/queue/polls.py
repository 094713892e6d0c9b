"""Open takes; the oldest is served first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from runpod_worker.core.job import Job, Policy
from runpod_worker.service.queue.waiters import resolve


def _always() -> bool:
    return True


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request for a job. The journal stores `body`; `input` and `s3_config` are parts of it."""

    body: bytes
    input: bytes
    s3_config: bytes
    webhook: str | None
    policy: Policy


class TakeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's request for jobs: an open take, or a part of a report.

    The worker chooses `id`, and repeats or releases the take with it (docs/extensions.md); "" without an id. `counted`:
    the worker uses the extension `attempt`. `confirms`: it uses the extension `stop`. `is_alive`: whether its
    connection is open.
    """

    endpoint: str
    worker: str
    max_jobs: int = 1
    id: str = ""
    gpu: str | None = None
    counted: bool = False
    confirms: bool = False
    is_alive: Callable[[], bool] = _always


class Assigned(msgspec.Struct, frozen=True):
    """A job that the worker has a lease on, and its request: the stored body, or the submission of a new job.

    `Takes.load` fills in a missing request.
    """

    job: Job
    request: Submission | bytes = b""


@dataclass(eq=False, slots=True)
class Poll:
    """An open take. Its answer is a list of jobs, empty after the timeout."""

    request: TakeRequest
    future: asyncio.Future[list[Assigned]]

    def resolve(self, assigned: list[Assigned]) -> None:
        """Answer the take."""
        resolve(self.future, assigned)


class Polls:
    """The open takes of every endpoint. Each operation on a take costs O(1)."""

    def __init__(self) -> None:
        self._queues: dict[str, OrderedDict[Poll, None]] = {}
        self._closed = False

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def pop(self, endpoint: str) -> Poll | None:
        """Remove and return the oldest take whose connection is open. The caller must resolve it."""
        queue = self._queues.get(endpoint)
        while queue:
            poll = next(iter(queue))
            self._remove(poll)
            if not poll.future.done() and poll.request.is_alive():
                return poll
            poll.resolve([])
        return None

    async def wait(self, request: TakeRequest, timeout_s: float) -> list[Assigned]:
        """Wait for the answer of the take; no jobs after `timeout_s`, or when the service drains."""
        if self._closed or timeout_s <= 0:
            return []
        loop = asyncio.get_running_loop()
        poll = Poll(request, loop.create_future())
        self._queues.setdefault(request.endpoint, OrderedDict())[poll] = None
        timer = loop.call_later(timeout_s, self._expire, poll)
        try:
            return await poll.future
        finally:
            timer.cancel()
            self._remove(poll)

    def is_waiting(self, endpoint: str) -> bool:
        """Whether a take of the endpoint is open."""
        return bool(self._queues.get(endpoint))

    def release(self, endpoint: str, worker: str, take_ids: Collection[str]) -> None:
        """Answer the worker's open takes with these ids: no jobs."""
        for poll in list(self._queues.get(endpoint, ())):
            if poll.request.worker == worker and poll.request.id in take_ids:
                self._expire(poll)

    def close(self) -> None:
        """Answer every open and every later take: no jobs."""
        self._closed = True
        for queue in list(self._queues.values()):
            for poll in list(queue):
                self._expire(poll)

    def _expire(self, poll: Poll) -> None:
        """Answer an open take: no jobs. A popped take is answered after its commit."""
        if self._remove(poll):
            poll.resolve([])

    def _remove(self, poll: Poll) -> bool:
        queue = self._queues.get(poll.request.endpoint)
        if queue is None or poll not in queue:
            return False
        del queue[poll]
        if not queue:
            del self._queues[poll.request.endpoint]
        return True
