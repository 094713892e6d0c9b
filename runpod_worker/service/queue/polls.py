"""Held job-takes, first come first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from runpod_worker.core.job import Job
from runpod_worker.service.queue.waiters import resolve


def _always() -> bool:
    return True


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker asks for when it takes jobs.

    `take` names the hand-over (see docs/extensions.md), `counted` and `confirms` say that the worker speaks the
    `attempt` and `stop` extensions, `alive` tells whether its connection still stands.
    """

    endpoint: str
    worker: str
    limit: int = 1
    take: str = ""
    gpu: str | None = None
    counted: bool = False
    confirms: bool = False
    alive: Callable[[], bool] = _always


class Handed(msgspec.Struct, frozen=True):
    """A job on its way to a worker, and the job object the worker reads."""

    job: Job
    body: bytes


@dataclass(eq=False, slots=True)
class Poll:
    """One held job-take."""

    ask: Ask
    future: asyncio.Future[list[Handed] | None]
    claimed: bool = False
    late: bool = False

    def give(self, handed: list[Handed] | None) -> None:
        """Answer the poll."""
        resolve(self.future, handed)

    def expire(self) -> None:
        """Answer with nothing, unless a job is being written for it this moment."""
        self.late = True
        if not self.claimed:
            self.give(None)


class Polls:
    """The held job-takes of every endpoint. Waking one costs O(1), however many wait."""

    def __init__(self) -> None:
        self._queues: dict[str, OrderedDict[Poll, None]] = {}
        self._silenced = False

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def claim(self, endpoint: str) -> Poll | None:
        """The poll that waits longest and is still connected: the caller must `give` it something, or `unclaim` it."""
        queue = self._queues.get(endpoint)
        while queue:
            poll, _ = queue.popitem(last=False)
            if not poll.future.done() and poll.ask.alive():
                poll.claimed = True
                return poll
            poll.give(None)
        return None

    def unclaim(self, poll: Poll) -> None:
        """Put a claimed poll back, first in line; let it go if its time ran out meanwhile."""
        poll.claimed = False
        if poll.late or self._silenced:
            poll.give(None)
            return
        queue = self._queues.setdefault(poll.ask.endpoint, OrderedDict())
        queue[poll] = None
        queue.move_to_end(poll, last=False)

    async def wait(self, ask: Ask, timeout: float) -> list[Handed]:
        """What the poll is given; nothing after `timeout` seconds, or when the service drains."""
        if self._silenced or timeout <= 0:
            return []
        loop = asyncio.get_running_loop()
        poll = Poll(ask, loop.create_future())
        self._queues.setdefault(ask.endpoint, OrderedDict())[poll] = None
        timer = loop.call_later(timeout, poll.expire)
        try:
            return await poll.future or []
        finally:
            timer.cancel()
            self._leave(poll)

    def waiting(self, endpoint: str) -> bool:
        """Whether a worker holds a job-take of the endpoint open."""
        return bool(self._queues.get(endpoint))

    def drop(self, endpoint: str, worker: str, takes: set[str]) -> None:
        """Answer the worker's polls under these names with nothing."""
        for poll in list(self._queues.get(endpoint, ())):
            if poll.ask.worker == worker and poll.ask.take in takes:
                poll.expire()

    def silence(self) -> None:
        """Answer every held job-take with nothing, now and from now on."""
        self._silenced = True
        for queue in list(self._queues.values()):
            for poll in list(queue):
                poll.expire()

    def _leave(self, poll: Poll) -> None:
        queue = self._queues.get(poll.ask.endpoint)
        if queue is None:
            return
        queue.pop(poll, None)
        if not queue:
            del self._queues[poll.ask.endpoint]
