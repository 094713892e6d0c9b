"""Open takes; the oldest is served first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec

from runpod_worker.core.job import Job, Policy
from runpod_worker.service.queue.waiters import Waiters, resolve


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


class Poll(NamedTuple):
    """An open take. Its answer is a list of jobs, None after the timeout."""

    request: TakeRequest
    future: asyncio.Future[list[Assigned] | None]

    def resolve(self, assigned: list[Assigned]) -> None:
        """Answer the take."""
        resolve(self.future, assigned)


class Polls(Waiters[list[Assigned], TakeRequest]):
    """The open takes of every endpoint."""

    def pop(self, endpoint: str) -> Poll | None:
        """Remove and return the oldest take whose connection is open. The caller must resolve it."""
        while queue := self._waiting.get(endpoint):
            future, request = next(iter(queue.items()))
            self._remove(endpoint, future)
            if request is not None and not future.done() and request.is_alive():
                return Poll(request, future)
            resolve(future, None)
        return None

    def release(self, endpoint: str, worker: str, take_ids: Collection[str]) -> None:
        """Answer the worker's open takes with these ids: no jobs."""
        for future, request in list(self._waiting.get(endpoint, {}).items()):
            if request is not None and request.worker == worker and request.id in take_ids:
                self._expire(endpoint, future)
