"""Every rule about how many jobs a worker requests, and when.

1. A free slot needs a job immediately.
2. Prefetch a job for a busy slot only if that slot is expected to be free within the *lead*: one round trip to the
   service plus the time a job takes to prepare. Then the job waits here no longer than its transport would take anyway.
3. The expectation is the *mean residual life*: the mean of `d - e` over the recent durations `d` longer than the time
   `e` the running job has had. In a mix of 50 ms and 10 s jobs nothing is prefetched behind a short job: at its
   start the mean is seconds, and a job that has run for over 50 ms is a long one. If all jobs take 50 ms, the next is
   prefetched one round trip before the end.
4. When several jobs fit into the lead, request several, so that very short jobs arrive in batches.
5. Prefetch nothing before the first jobs have ended, nor behind a job that runs longer than all recent jobs.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable

WINDOW_JOBS = 64
"""The number of recent durations that count."""

TURNAROUND_S = 50e-6
"""The time that a slot needs for a job of an empty handler. Shorter durations count as this."""

SMOOTHING = 1 / 8
"""Weight of a new measurement, as in TCP's estimate of round trips (RFC 6298)."""

TIMER_DELAY_S = 0.0015
"""Allowance for late timers (uvloop counts in milliseconds), and for the way to the executor."""

ROUNDING_S = 1e-9
"""Added to `due_in`, so that `jobs_wanted` agrees at that time."""

OUTLIER_FACTOR = 1.25
"""A job that runs this many times longer than all recent jobs, plus one lead, counts as another kind of job."""


class Durations:
    """The durations of recent jobs, and the expected remaining time of a running job."""

    def __init__(self, window: int = WINDOW_JOBS) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._window = window
        self._sum = 0.0

    def add(self, duration_s: float) -> None:
        """Record a job that ended after `duration_s`."""
        duration_s = max(duration_s, TURNAROUND_S)
        if len(self._recent) == self._window:
            oldest = self._recent.popleft()
            del self._sorted[bisect_right(self._sorted, oldest) - 1]
            self._sum -= oldest
        self._recent.append(duration_s)
        insort(self._sorted, duration_s)
        self._sum += duration_s

    @property
    def longest(self) -> float:
        """The longest recent duration, or 0."""
        return self._sorted[-1] if self._sorted else 0.0

    @property
    def mean(self) -> float:
        """The mean of the recent durations, or 0."""
        return max(self._sum / len(self._recent), TURNAROUND_S) if self._recent else 0.0

    def residual(self, elapsed_s: float) -> float:
        """The expected remaining time of a job that has run for `elapsed_s`; infinite without recent durations."""
        index = bisect_right(self._sorted, elapsed_s)
        return self._longer(index) - elapsed_s if index < len(self._sorted) else math.inf

    def due_in(self, elapsed_s: float, lead_s: float) -> float | None:
        """The time until `residual` falls to `lead_s`; None if it never does, judging by recent jobs."""
        ends = self._sorted
        for index in range(bisect_right(ends, elapsed_s), len(ends)):
            begins = max(elapsed_s, ends[index - 1] if index else 0.0, self._longer(index) - lead_s)
            if begins < ends[index]:
                return begins - elapsed_s
        return None

    def _longer(self, index: int) -> float:
        """The mean of the durations from `index` on, in sorted order."""
        if index == 0:
            return self.mean
        return sum(self._sorted[index:]) / (len(self._sorted) - index)


class _Smoothed:
    """An upper estimate of a varying measurement: its mean plus four mean deviations (RFC 6298)."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def add(self, value: float) -> None:
        if self._mean is None:
            self._mean, self._deviation = value, value / 4
            return
        self._deviation += SMOOTHING * (abs(value - self._mean) - self._deviation)
        self._mean += SMOOTHING * (value - self._mean)

    @property
    def value(self) -> float | None:
        return None if self._mean is None else self._mean + 4 * self._deviation


class PrefetchEstimator:
    """Estimates how many jobs to hold now, from recent jobs and requests."""

    def __init__(self, *, prefetch_s: float, prefetch_jobs: int) -> None:
        """Hold no job longer than `prefetch_s` before its slot is free, and no more than `prefetch_jobs` for one slot.

        0 switches prefetch off.
        """
        self._prefetch_s = prefetch_s
        self._prefetch_jobs = prefetch_jobs
        self._durations = Durations()
        self._round_trip = _Smoothed()
        self._preparation = _Smoothed()
        self.lead_s = 0.0
        """How long before a slot is free to request its next job; 0 before the first round trip."""

    def add_duration(self, duration_s: float) -> None:
        """Record how long a job held its slot."""
        self._durations.add(duration_s)

    def add_round_trip(self, round_trip_s: float) -> None:
        """Record the duration of a small request that is not a long poll."""
        self._round_trip.add(round_trip_s)
        self._set_lead()

    def add_preparation(self, preparation_s: float) -> None:
        """Record how long a job with a free slot needed until its input was ready."""
        self._preparation.add(preparation_s)
        self._set_lead()

    @property
    def outlier_s(self) -> float:
        """A job that has run for longer counts as another kind of job, behind which no job should wait."""
        return self._durations.longest * OUTLIER_FACTOR + self.lead_s

    def jobs_wanted(self, free: int, running: Iterable[float]) -> int:
        """Return the number of jobs that should wait for a slot: one for each free slot, and prefetched jobs.

        `running`: for how long each job in a busy slot has run.
        """
        lead = self.lead_s
        if lead <= 0:
            return free
        jobs = free * (1 + self._prefetched(0.0, lead)) if free else 0
        return jobs + sum(self._prefetched(elapsed, lead) for elapsed in running)

    def due_in(self, running: Iterable[float]) -> float | None:
        """Return the time until a busy slot without a prefetched job needs one; None if that takes another event."""
        lead = self.lead_s
        if lead <= 0:
            return None
        times = (self._durations.due_in(elapsed, lead) for elapsed in running if not self._prefetched(elapsed, lead))
        return min((time for time in times if time is not None), default=None)

    def _set_lead(self) -> None:
        round_trip = self._round_trip.value
        if round_trip is not None and self._prefetch_jobs > 0:
            self.lead_s = min(round_trip + (self._preparation.value or 0.0) + TIMER_DELAY_S, self._prefetch_s)

    def _prefetched(self, elapsed_s: float, lead_s: float) -> int:
        residual = self._durations.residual(elapsed_s)
        if residual > lead_s + ROUNDING_S:
            return 0
        return min(1 + max(0, int((lead_s - residual) / self._durations.mean)), self._prefetch_jobs)
