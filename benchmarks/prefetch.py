"""`python -m benchmarks.prefetch [--seconds 40] [--write docs]`: is a job that is taken ahead kept from a free worker?

Four workers with one slot each, 50 ms jobs among 10 s ones, random arrivals; how long a job waits from when it is added
until its handler starts, with and without taking ahead: in a simulation of hours, and in a real run.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from benchmarks import blocks
from benchmarks.contenders import OURS, running
from benchmarks.outage import Service
from runpod_worker.core.prefetch import Capacity

WORKERS = 4
SHORT_S, LONG_S = 0.05, 10.0
LONG_SHARE = 0.06
LOAD = 0.6
ROUND_TRIP_S = 0.02
AHEAD_S = 0.5
HEAD = ["", "jobs", "mean wait", "p50", "p99", "mean wait of the short ones"]

Job = tuple[float, float]
"""When it is added, and for how long it runs."""


def arrivals(seed: int, lasting_s: float) -> Iterator[Job]:
    """Jobs at random times, so many that the workers are busy for `LOAD` of the time."""
    chance = random.Random(seed)
    mean_s = LONG_SHARE * LONG_S + (1 - LONG_SHARE) * SHORT_S
    at = 0.0
    while (at := at + chance.expovariate(LOAD * WORKERS / mean_s)) < lasting_s:
        yield at, LONG_S if chance.random() < LONG_SHARE else SHORT_S


# ------------------------------------------------------------------ simulated


class Simulated:
    """One worker: a slot, what it holds ahead of it, and what it has asked for."""

    def __init__(self, ahead_s: float) -> None:
        self.capacity = Capacity(ahead_s=ahead_s, ahead_jobs=32 if ahead_s else 0)
        self.capacity.answered(ROUND_TRIP_S)
        self.held: deque[Job] = deque()
        self.asked = 0
        self.began: float | None = None

    def elapsed(self, now: float) -> list[float]:
        """For how long its job has run."""
        return [] if self.began is None else [now - self.began]

    def wanted(self, now: float) -> int:
        """How many more jobs it asks for."""
        free = int(self.began is None)
        return self.capacity.wanted(free, self.elapsed(now)) - len(self.held) - self.asked


class Simulation:
    """Time passes from event to event; half a round trip each way between the workers and the queue."""

    def __init__(self, jobs: Iterator[Job], ahead_s: float) -> None:
        self.waits: list[tuple[float, float]] = []
        self._workers = [Simulated(ahead_s) for _ in range(WORKERS)]
        self._queue: deque[Job] = deque()
        self._polls: deque[Simulated] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._now = 0.0
        for job in jobs:
            self._later(job[0], lambda job=job: self._added(job))  # type: ignore[misc]
        for worker in self._workers:
            self._ask(worker)

    def run(self) -> list[tuple[float, float]]:
        """How long each job ran and waited."""
        while self._events:
            self._now, _, call = heapq.heappop(self._events)
            call()
        return self.waits

    def _later(self, at: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._count), call))

    def _added(self, job: Job) -> None:
        self._queue.append(job)
        self._match()

    def _match(self) -> None:
        while self._queue and self._polls:
            worker, job = self._polls.popleft(), self._queue.popleft()
            self._later(self._now + ROUND_TRIP_S / 2, lambda w=worker, j=job: self._arrived(w, j))  # type: ignore[misc]

    def _ask(self, worker: Simulated) -> None:
        for _ in range(max(0, worker.wanted(self._now))):
            worker.asked += 1
            self._later(self._now + ROUND_TRIP_S / 2, lambda: self._asked(worker))
        due = worker.capacity.due_in(worker.elapsed(self._now))
        if due is not None and worker.began is not None:
            self._later(self._now + due, lambda began=worker.began: self._due(worker, began))  # type: ignore[misc]

    def _due(self, worker: Simulated, began: float) -> None:
        if worker.began == began and worker.wanted(self._now) > 0:
            self._ask(worker)

    def _asked(self, worker: Simulated) -> None:
        self._polls.append(worker)
        self._match()

    def _arrived(self, worker: Simulated, job: Job) -> None:
        worker.asked -= 1
        worker.held.append(job)
        if worker.began is None:
            self._start(worker)
        else:
            self._watch(worker, job)

    def _watch(self, worker: Simulated, job: Job) -> None:
        rest = max(map(worker.capacity.outlived_in, worker.elapsed(self._now)), default=0.0)
        if rest > 1e-6:  # else rounding makes it come again and again
            self._later(self._now + rest, lambda: job in worker.held and self._watch(worker, job))  # type: ignore[arg-type,func-returns-value]
        elif job in worker.held and worker.began is not None:  # a hostage: back to the front of the queue
            worker.held.remove(job)
            self._later(self._now + ROUND_TRIP_S / 2, lambda: (self._queue.appendleft(job), self._match()))  # type: ignore[arg-type,func-returns-value]

    def _start(self, worker: Simulated) -> None:
        job = worker.held.popleft()
        worker.began = self._now
        self.waits.append((job[1], self._now - job[0]))
        self._later(self._now + job[1], lambda: self._ended(worker, job))
        self._ask(worker)

    def _ended(self, worker: Simulated, job: Job) -> None:
        worker.began = None
        worker.capacity.ended(job[1])
        if worker.held:
            self._start(worker)
        else:
            self._ask(worker)


# ------------------------------------------------------------------ for real


class Fleet(Service):
    """Names each worker, and says how far ahead it may take."""

    def __init__(self, ahead_s: float) -> None:
        super().__init__(delay=ROUND_TRIP_S)
        self._ahead_s = ahead_s
        self._started = 0

    def environment(self, worker_id: str = "bench") -> dict[str, str]:
        self._started += 1
        return super().environment(f"{worker_id}{self._started}") | {"RUNPOD_WORKER_PREFETCH": str(self._ahead_s)}


async def real(ahead_s: float, lasting_s: float) -> list[tuple[float, float]]:
    """How long each job ran and waited."""
    service = Fleet(ahead_s)
    await service.start()
    jobs = list(arrivals(1, lasting_s))
    added: dict[str, float] = {}
    async with AsyncExitStack() as workers:
        for _ in range(WORKERS):
            service.seen.first_take = None
            await workers.enter_async_context(running(OURS, service, "sleep", 1))
        service.reset(len(jobs))
        begin = time.monotonic()
        for n, (at, lasts) in enumerate(jobs):
            await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
            added[f"job{n}"] = time.monotonic()
            service.add(f"job{n}", {"s": lasts})
        await asyncio.wait_for(service.finished.wait(), 300)
    starts = {job: json.loads(body)["output"]["s"] for job, body in service.seen.bodies.items()}
    await service.close()
    return [(jobs[int(job[3:])][1], start - added[job]) for job, start in starts.items()]


def row(name: str, waits: list[tuple[float, float]]) -> list[str]:
    """The figures of one run."""
    all_ = sorted(wait for _, wait in waits)
    short = statistics.fmean(wait for lasts, wait in waits if lasts == SHORT_S)
    p50, p99 = (all_[min(len(all_) - 1, int(len(all_) * part))] for part in (0.5, 0.99))
    return [name, str(len(all_)), *(f"{1000 * value:,.0f} ms" for value in (statistics.fmean(all_), p50, p99, short))]


def measured(hours: float, lasting_s: float) -> list[list[str]]:
    """The rows of the table."""
    rows = []
    for name, ahead_s in (("without taking ahead", 0.0), ("with", AHEAD_S)):
        rows.append(row(f"simulated, {name}", Simulation(arrivals(7, 3600 * hours), ahead_s).run()))
    for name, ahead_s in (("without taking ahead", 0.0), ("with", AHEAD_S)):
        rows.append(row(f"real, {name}", uvloop.run(real(ahead_s, lasting_s))))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="of simulated time")
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals in the real run")
    parser.add_argument("--write", type=Path, help="folder of benchmarks.md")
    options = parser.parse_args()
    lines = blocks.table(HEAD, measured(options.hours, options.seconds))
    print("\n".join(lines))
    if options.write:
        blocks.rewrite(options.write, "hostage", "No job is held hostage", lines)
