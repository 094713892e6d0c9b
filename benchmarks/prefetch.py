"""`python -m benchmarks.prefetch [--seconds 40] [--write docs]`: does a prefetched job wait behind a long one?

Four workers with one slot each; 50 ms jobs among 10 s jobs; random arrivals. Measures the time from submission until
the handler starts, with and without prefetch: in a simulation of hours and in a real run.
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
from runpod_worker.core.prefetch import PrefetchEstimator

WORKERS = 4
SHORT_S, LONG_S = 0.05, 10.0
LONG_SHARE = 0.06
LOAD = 0.6
ROUND_TRIP_S = 0.02
PREFETCH_S = 0.5
HEAD = ["", "jobs", "mean wait", "p50", "p99", "mean wait of the short jobs"]

Job = tuple[float, float]
"""The time of its submission and its duration."""


def arrivals(seed: int, duration_s: float) -> Iterator[Job]:
    """Jobs at random times that keep the workers busy for `LOAD` of the time."""
    chance = random.Random(seed)
    mean_s = LONG_SHARE * LONG_S + (1 - LONG_SHARE) * SHORT_S
    at = 0.0
    while (at := at + chance.expovariate(LOAD * WORKERS / mean_s)) < duration_s:
        yield at, LONG_S if chance.random() < LONG_SHARE else SHORT_S


# ------------------------------------------------------------------ simulation


class Simulated:
    """One worker: its slot, its prefetched jobs, and the jobs it has requested."""

    def __init__(self, prefetch_s: float) -> None:
        self.estimator = PrefetchEstimator(prefetch_s=prefetch_s, prefetch_jobs=32 if prefetch_s else 0)
        self.estimator.add_round_trip(ROUND_TRIP_S)
        self.held: deque[Job] = deque()
        self.requested = 0
        self.started_at: float | None = None

    def elapsed(self, now: float) -> list[float]:
        """The time that its job has run."""
        return [] if self.started_at is None else [now - self.started_at]

    def wanted(self, now: float) -> int:
        """How many more jobs it requests."""
        free = int(self.started_at is None)
        return self.estimator.jobs_wanted(free, self.elapsed(now)) - len(self.held) - self.requested


class Simulation:
    """Time jumps from event to event. Between a worker and the queue it is half a round trip each way."""

    def __init__(self, jobs: Iterator[Job], prefetch_s: float) -> None:
        self.waits: list[tuple[float, float]] = []
        self._workers = [Simulated(prefetch_s) for _ in range(WORKERS)]
        self._queue: deque[Job] = deque()
        self._polls: deque[Simulated] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._now = 0.0
        for job in jobs:
            self._later(job[0], lambda job=job: self._on_submit(job))  # type: ignore[misc]
        for worker in self._workers:
            self._request(worker)

    def run(self) -> list[tuple[float, float]]:
        """Return duration and wait of each job."""
        while self._events:
            self._now, _, call = heapq.heappop(self._events)
            call()
        return self.waits

    def _later(self, at: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._count), call))

    def _on_submit(self, job: Job) -> None:
        self._queue.append(job)
        self._match()

    def _match(self) -> None:
        while self._queue and self._polls:
            worker, job = self._polls.popleft(), self._queue.popleft()
            self._later(self._now + ROUND_TRIP_S / 2, lambda w=worker, j=job: self._on_assignment(w, j))  # type: ignore[misc]

    def _request(self, worker: Simulated) -> None:
        for _ in range(max(0, worker.wanted(self._now))):
            worker.requested += 1
            self._later(self._now + ROUND_TRIP_S / 2, lambda: self._on_request(worker))
        due = worker.estimator.due_in(worker.elapsed(self._now))
        if due is not None and worker.started_at is not None:
            self._later(self._now + due, lambda started_at=worker.started_at: self._on_due(worker, started_at))  # type: ignore[misc]

    def _on_due(self, worker: Simulated, started_at: float) -> None:
        if worker.started_at == started_at and worker.wanted(self._now) > 0:
            self._request(worker)

    def _on_request(self, worker: Simulated) -> None:
        self._polls.append(worker)
        self._match()

    def _on_assignment(self, worker: Simulated, job: Job) -> None:
        worker.requested -= 1
        worker.held.append(job)
        if worker.started_at is None:
            self._start(worker)
        else:
            self._watch(worker, job)

    def _watch(self, worker: Simulated, job: Job) -> None:
        remaining_s = max((worker.estimator.outlier_s - elapsed for elapsed in worker.elapsed(self._now)), default=0.0)
        if remaining_s > 1e-6:  # rounding would repeat it forever
            self._later(self._now + remaining_s, lambda: job in worker.held and self._watch(worker, job))  # type: ignore[arg-type,func-returns-value]
        elif job in worker.held and worker.started_at is not None:  # blocked: back to the front of the queue
            worker.held.remove(job)
            self._later(self._now + ROUND_TRIP_S / 2, lambda: (self._queue.appendleft(job), self._match()))  # type: ignore[arg-type,func-returns-value]

    def _start(self, worker: Simulated) -> None:
        job = worker.held.popleft()
        worker.started_at = self._now
        self.waits.append((job[1], self._now - job[0]))
        self._later(self._now + job[1], lambda: self._on_end(worker, job))
        self._request(worker)

    def _on_end(self, worker: Simulated, job: Job) -> None:
        worker.started_at = None
        worker.estimator.add_duration(job[1])
        if worker.held:
            self._start(worker)
        else:
            self._request(worker)


# ------------------------------------------------------------------ real run


class Fleet(Service):
    """Gives each worker a name and its prefetch setting."""

    def __init__(self, prefetch_s: float) -> None:
        super().__init__(delay=ROUND_TRIP_S)
        self._prefetch_s = prefetch_s
        self._started = 0

    def environment(self, worker_id: str = "benchmark") -> dict[str, str]:
        self._started += 1
        return super().environment(f"{worker_id}{self._started}") | {"RUNPOD_WORKER_PREFETCH": str(self._prefetch_s)}


async def run_real(prefetch_s: float, duration_s: float) -> list[tuple[float, float]]:
    """Return duration and wait of each job."""
    service = Fleet(prefetch_s)
    await service.start()
    jobs = list(arrivals(1, duration_s))
    submitted_at: dict[str, float] = {}
    async with AsyncExitStack() as workers:
        for _ in range(WORKERS):
            service.seen.first_take = None
            await workers.enter_async_context(running(OURS, service, "sleep", 1))
        service.reset(len(jobs))
        begin = time.monotonic()
        for n, (at, job_s) in enumerate(jobs):
            await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
            submitted_at[f"job{n}"] = time.monotonic()
            service.add(f"job{n}", {"s": job_s})
        await asyncio.wait_for(service.finished.wait(), 300)
    starts = {job: json.loads(body)["output"]["s"] for job, body in service.seen.bodies.items()}
    await service.close()
    return [(jobs[int(job[3:])][1], start - submitted_at[job]) for job, start in starts.items()]


def row(name: str, waits: list[tuple[float, float]]) -> list[str]:
    """The figures of one run."""
    sorted_waits = sorted(wait for _, wait in waits)
    short = statistics.fmean(wait for job_s, wait in waits if job_s == SHORT_S)
    p50, p99 = (sorted_waits[min(len(sorted_waits) - 1, int(len(sorted_waits) * part))] for part in (0.5, 0.99))
    return [
        name,
        str(len(sorted_waits)),
        *(f"{1000 * value:,.0f} ms" for value in (statistics.fmean(sorted_waits), p50, p99, short)),
    ]


def measure(hours: float, duration_s: float) -> list[list[str]]:
    """Run both and return the rows of the table."""
    rows = []
    for name, prefetch_s in (("without prefetch", 0.0), ("with", PREFETCH_S)):
        rows.append(row(f"simulated, {name}", Simulation(arrivals(7, 3600 * hours), prefetch_s).run()))
    for name, prefetch_s in (("without prefetch", 0.0), ("with", PREFETCH_S)):
        rows.append(row(f"real, {name}", uvloop.run(run_real(prefetch_s, duration_s))))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=3.0, help="of simulated time")
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals in the real run")
    parser.add_argument("--write", type=Path, help="folder of benchmarks.md")
    options = parser.parse_args()
    lines = blocks.table(HEAD, measure(options.hours, options.seconds))
    print("\n".join(lines))
    if options.write:
        blocks.rewrite(options.write, "prefetch", "No job waits behind a long one", lines)
