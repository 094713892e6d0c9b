"""When a worker asks for the next job: the rule, its properties, and what it does to jobs that wait (a simulation)."""

import heapq
import math
import random
import statistics
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.prefetch import TURNAROUND_S, WINDOW_JOBS, Durations, PrefetchEstimator

durations = st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=100)


def learned(
    *seconds: float, round_trip_s: float = 0.02, prefetch_s: float = 0.5, prefetch_jobs: int = 32
) -> PrefetchEstimator:
    estimator = PrefetchEstimator(prefetch_s=prefetch_s, prefetch_jobs=prefetch_jobs)
    for _ in range(50):
        estimator.add_round_trip(round_trip_s)
    for duration in seconds:
        estimator.add_duration(duration)
    return estimator


# ---------------------------------------------------------------- the rule


def test_a_free_slot_wants_a_job_before_anything_is_known() -> None:
    assert PrefetchEstimator(prefetch_s=0.5, prefetch_jobs=32).jobs_wanted(3, []) == 3


def test_nothing_is_prefetched_while_durations_are_unknown() -> None:
    assert learned().jobs_wanted(0, [0.001]) == 0


def test_a_job_is_taken_one_round_trip_before_the_end() -> None:
    estimator = learned(*[0.05] * 10)

    assert estimator.jobs_wanted(0, [0.0]) == 0
    assert estimator.jobs_wanted(0, [0.025]) == 0
    assert estimator.jobs_wanted(0, [0.035]) == 1
    assert estimator.due_in([0.0]) == pytest.approx(0.05 - estimator.lead_s)


def test_preparation_makes_the_lead_longer() -> None:
    estimator = learned(*[1.0] * 10)
    for _ in range(50):
        estimator.add_preparation(0.1)

    assert estimator.lead_s == pytest.approx(0.12, rel=0.2)


def test_the_lead_is_bounded() -> None:
    assert learned(1.0, round_trip_s=9.0, prefetch_s=0.25).lead_s == 0.25


def test_a_job_that_outlives_all_recent_ones_has_nothing_waiting_behind_it() -> None:
    estimator = learned(*[0.05] * 10)

    assert estimator.jobs_wanted(0, [0.051]) == 0
    assert estimator.due_in([0.051]) is None
    assert 0.05 < estimator.outlier_s < 0.5


def test_short_jobs_among_long_ones_are_never_prefetched() -> None:
    estimator = learned(*[0.05] * 60, *[10.0] * 4)

    for elapsed in (0.0, 0.04, 0.049, 0.0499, 0.06, 1.0, 9.0):
        assert estimator.jobs_wanted(0, [elapsed]) == 0
    assert estimator.jobs_wanted(0, [9.99]) == 1


def test_jobs_of_no_duration_travel_in_batches() -> None:
    assert learned(*[0.0] * 10).jobs_wanted(1, []) == 33
    assert learned(*[0.0] * 10, prefetch_jobs=5).jobs_wanted(1, []) == 6


def test_as_many_jobs_are_prefetched_as_fit_into_the_lead() -> None:
    estimator = learned(*[0.004] * 10)

    assert estimator.jobs_wanted(0, [0.0]) == 1 + int((estimator.lead_s - 0.004) / 0.004)


@pytest.mark.parametrize(("prefetch_s", "prefetch_jobs"), [(0.0, 32), (0.5, 0)])
def test_prefetch_can_be_switched_off(prefetch_s: float, prefetch_jobs: int) -> None:
    estimator = learned(*[0.001] * 10, prefetch_s=prefetch_s, prefetch_jobs=prefetch_jobs)

    assert estimator.jobs_wanted(1, [0.0009]) == 1
    assert estimator.due_in([0.0]) is None


# ---------------------------------------------------------------- its properties


@given(durations, st.floats(0, 1e3))
def test_the_residual_is_the_mean_over_the_longer_ones(seconds: list[float], elapsed: float) -> None:
    known = Durations()
    for duration in seconds:
        known.add(duration)

    longer = [duration - elapsed for duration in seconds[-WINDOW_JOBS:] if duration > elapsed]

    expected = statistics.fmean(longer) if longer else math.inf
    assert known.residual(elapsed) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(durations, st.floats(0, 1e3), st.floats(1e-3, 10))
def test_the_time_named_is_the_first_at_which_the_rule_is_true(
    seconds: list[float], elapsed: float, lead: float
) -> None:
    known = Durations()
    for duration in seconds:
        known.add(duration)

    due = known.due_in(elapsed, lead)

    if due is None:
        assert all(
            known.residual(at) > lead - 1e-6
            for at in [elapsed, *(duration for duration in seconds if duration > elapsed)]
        )
    else:
        assert due >= 0
        assert known.residual(elapsed + due) <= lead + 1e-6
        assert all(known.residual(elapsed + due * part / 8) >= lead - 1e-6 for part in range(8) if due > 1e-6)


@given(durations, st.integers(0, 8), st.lists(st.floats(0, 1e3), max_size=8))
def test_a_free_slot_always_wants_a_job_and_the_bounds_hold(
    seconds: list[float], free: int, running: list[float]
) -> None:
    estimator = learned(*seconds, prefetch_jobs=4)

    assert free <= estimator.jobs_wanted(free, running) <= free + 4 * (free + len(running))


def test_only_recent_durations_count() -> None:
    known = Durations()
    for duration in [10.0] * 5 + [0.05] * WINDOW_JOBS:
        known.add(duration)

    assert known.longest == 0.05
    assert known.mean == pytest.approx(0.05)


def test_no_duration_counts_as_less_than_the_turnaround() -> None:
    known = Durations()
    known.add(0.0)

    assert known.mean == TURNAROUND_S


# ---------------------------------------------------------------- behind long jobs


def waits(prefetch_jobs: int, *, seed: int, workers: int = 4, jobs: int = 2000, load: float = 0.8) -> list[float]:
    """Simulate workers that share a backlog of 50 ms and (one in twenty) 10 s jobs: how long each job waited."""
    chance = random.Random(seed)
    lengths = [10.0 if chance.random() < 0.05 else 0.05 for _ in range(jobs)]
    pace = workers * load / statistics.fmean(lengths)
    arrivals, at = [], 0.0
    for _ in range(jobs):
        at += chance.expovariate(pace)
        arrivals.append(at)
    return _Simulation(lengths, arrivals, workers, prefetch_jobs).run()


class _Simulation:
    """One slot a worker; a take is answered after half a round trip, and holds while there is nothing."""

    TRIP_S = 0.02

    def __init__(self, lengths: list[float], arrivals: list[float], workers: int, prefetch_jobs: int) -> None:
        self.lengths = lengths
        self.arrivals = arrivals
        self.estimator = [learned(round_trip_s=self.TRIP_S, prefetch_jobs=prefetch_jobs) for _ in range(workers)]
        self.held: list[deque[int]] = [deque() for _ in range(workers)]
        self.busy_since: list[float | None] = [None] * workers
        self.asking = [False] * workers
        self.waiting: deque[int] = deque()
        self.polls: deque[int] = deque()
        self.events: list[tuple[float, int, str, int, int]] = []
        self.waits: list[float] = []
        self.number = 0

    def run(self) -> list[float]:
        for job, at in enumerate(self.arrivals):
            self.at(at, "arrive", -1, job)
        for worker in range(len(self.held)):
            self.at(0.0, "look", worker, -1)
        while self.events and len(self.waits) < len(self.lengths):
            now, _, what, worker, job = heapq.heappop(self.events)
            getattr(self, what)(now, worker, job)
        return self.waits

    def at(self, time: float, what: str, worker: int, job: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, what, worker, job))

    def arrive(self, now: float, worker: int, job: int) -> None:
        self.waiting.append(job)
        self.match(now)

    def match(self, now: float) -> None:
        while self.waiting and self.polls:
            self.at(now + self.TRIP_S / 2, "got", self.polls.popleft(), self.waiting.popleft())

    def got(self, now: float, worker: int, job: int) -> None:
        self.asking[worker] = False
        self.held[worker].append(job)
        self.begin(now, worker)
        self.look(now, worker, -1)

    def begin(self, now: float, worker: int) -> None:
        if self.busy_since[worker] is None and self.held[worker]:
            job = self.held[worker].popleft()
            self.busy_since[worker] = now
            self.waits.append(now - self.arrivals[job])
            self.at(now + self.lengths[job], "end", worker, job)

    def end(self, now: float, worker: int, job: int) -> None:
        self.busy_since[worker] = None
        self.estimator[worker].add_duration(self.lengths[job])
        self.begin(now, worker)
        self.look(now, worker, -1)

    def look(self, now: float, worker: int, job: int) -> None:
        since = self.busy_since[worker]
        running = [] if since is None else [now - since]
        estimator = self.estimator[worker]
        if not self.asking[worker] and estimator.jobs_wanted(1 - len(running), running) > len(self.held[worker]):
            self.asking[worker] = True
            self.at(now + self.TRIP_S / 2, "ask", worker, -1)
        due = estimator.due_in(running)
        if due is not None:
            self.at(now + due + 1e-6, "look", worker, -1)

    def ask(self, now: float, worker: int, job: int) -> None:
        self.polls.append(worker)
        self.match(now)


def test_mixed_jobs_wait_no_longer_than_without_prefetch() -> None:
    """4 workers, 50 ms and 10 s jobs; means over several runs, since one run's p99 is a matter of luck."""
    means, tails = [], []
    for prefetch_jobs in (0, 32):
        runs = [sorted(waits(prefetch_jobs, seed=seed)) for seed in range(6)]
        means.append(statistics.fmean(statistics.fmean(run) for run in runs))
        tails.append(statistics.fmean(run[int(len(run) * 0.99)] for run in runs))

    without, with_prefetch = range(2)
    assert means[with_prefetch] <= means[without] * 1.02
    assert tails[with_prefetch] <= tails[without] * 1.02
