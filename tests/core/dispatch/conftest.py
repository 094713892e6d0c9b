"""A dispatcher that a test drives event by event."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from runpod_worker.core.dispatch import effects, events
from runpod_worker.core.dispatch.dispatcher import Dispatcher
from runpod_worker.core.dispatch.messages import Ready, Started
from runpod_worker.core.dispatch.values import Assignment, OnRefresh, TakeRequest
from runpod_worker.core.prefetch import PrefetchEstimator
from runpod_worker.core.protocol import EXTENSIONS


class Driver:
    """Sends events to a dispatcher, at times that the test sets, and keeps what follows."""

    def __init__(
        self,
        *,
        executors: int = 1,
        slots: int = 1,
        extensions: Sequence[str] = tuple(EXTENSIONS),
        on_refresh: OnRefresh = OnRefresh.EXIT,
    ) -> None:
        self.now = 100.0
        self.prefetch = PrefetchEstimator(prefetch_s=0.5, prefetch_jobs=32)
        self.dispatcher = Dispatcher(
            executors=executors,
            prefetch=self.prefetch,
            grace_s=30,
            stop_grace_s=5,
            load_timeout_s=60,
            on_refresh=on_refresh,
        )
        self.send(events.WorkerStarted())
        self.send(events.Agreed(frozenset(extensions)))
        for number in range(executors if slots else 0):
            self.become_ready(number, slots)
        self.takes = 0

    def send(self, event: events.Event, *, after: float = 0.0) -> list[effects.Effect]:
        self.now += after
        return self.dispatcher.handle(event, self.now)

    def become_ready(self, executor: int = 0, slots: int = 1, timeout_s: float | None = None) -> list[effects.Effect]:
        return self.send(events.Received(executor, Ready("function", slots, 0.0, "cpu", timeout_s=timeout_s)))

    def assign(self, *ids: str, attempt: int | None = 1, timeout_s: float | None = None) -> list[effects.Effect]:
        """Let a take return these jobs."""
        self.takes += 1
        take = TakeRequest(len(ids), f"take{self.takes}")
        self.send(events.TakeSent(take, is_poll=True))
        jobs = [Assignment(id=job, body=b"{}", attempt=attempt, timeout_s=timeout_s) for job in ids]
        return self.send(events.Assigned(take.id, tuple(jobs)))

    def start(self, job: str, *, executor: int = 0, **options: Any) -> str:
        """Assign a job and let its handler start; return its key."""
        [run] = self.assign(job, **options)
        assert isinstance(run, effects.Send)
        self.send(events.Received(executor, Started(run.message.key, self.now)))
        return run.message.key

    def tick(self) -> list[effects.Effect]:
        """Let time pass until the next deadline."""
        deadline = self.dispatcher.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        return self.send(events.Tick())

    def tick_until(self, kind: type) -> list[effects.Effect]:
        """Let time pass until an effect of this kind, or one that sends a message of this kind."""
        for _ in range(20):
            result = self.tick()
            if any(isinstance(getattr(effect, "message", effect), kind) for effect in result):
                return result
        pytest.fail(f"no {kind.__name__}")


@pytest.fixture
def drive() -> Callable[..., Driver]:
    """Start a dispatcher, by default with one executor of one slot and all extensions."""
    return Driver
