"""Every rule about how many jobs a worker asks for, and when, lives in this file.

1. A free slot wants a job at once.
2. A job may be held ahead of a busy slot only if that slot is expected to free within the *lead*: one round trip to the
   service plus the time a job takes to prepare. Then the job waits here no longer than its transport would take anyway.
3. What is expected is the *mean residual life*: the mean of `d - e` over the recent durations `d` longer than the time
   `e` the running job has had. So 50 ms jobs among 10 s ones are never taken ahead (at 0 ms the mean is seconds, and
   whatever lived past 50 ms will live for seconds), while 50 ms jobs alone are taken one round trip before the end.
4. When several jobs fit into the lead, several are asked for: jobs of no duration travel in batches.
5. Nothing is known before the first jobs have ended, nor of a job that outlives all recent ones: nothing is held ahead.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable
from itertools import accumulate

WINDOW = 64
"""How many recent durations are looked at."""

TURNAROUND_S = 50e-6
"""What a slot needs from one job to the next even if the handler does nothing; no duration counts as less."""

SMOOTHING = 1 / 8
"""Weight of a new measurement, as TCP smooths its round trips (RFC 6298)."""

LATE_S = 0.0015
"""What a timer of the event loop may be late (uvloop's have steps of 1 ms), and the way to the executor."""

ROUNDING_S = 1e-9
"""So that the moment `due_in` names is one at which `wanted` agrees."""

OUTLIVED = 1.25
"""A job this many times longer than all recent ones (and one lead more) is no straggler: it is another kind of job."""


class Durations:
    """How long recent jobs ran, and what that says about one that is running."""

    def __init__(self, window: int = WINDOW) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []
        self._window = window
        self._sum = 0.0
        self._means: list[float] | None = None

    def add(self, duration_s: float) -> None:
        """A job has ended after `duration_s`."""
        duration_s = max(duration_s, TURNAROUND_S)
        if len(self._recent) == self._window:
            oldest = self._recent.popleft()
            del self._sorted[bisect_right(self._sorted, oldest) - 1]
            self._sum -= oldest
        self._recent.append(duration_s)
        insort(self._sorted, duration_s)
        self._sum += duration_s
        self._means = None

    @property
    def longest(self) -> float:
        """The longest recent duration; 0 when there is none."""
        return self._sorted[-1] if self._sorted else 0.0

    @property
    def mean(self) -> float:
        """The mean of the recent durations; 0 when there is none."""
        return max(self._sum / len(self._recent), TURNAROUND_S) if self._recent else 0.0

    def residual(self, elapsed_s: float) -> float:
        """How much longer a job is expected to run that has run for `elapsed_s`; infinite when nothing is known."""
        index = bisect_right(self._sorted, elapsed_s)
        return self._longer(index) - elapsed_s if index < len(self._sorted) else math.inf

    def due_in(self, elapsed_s: float, lead_s: float) -> float | None:
        """In what time the expected rest falls to `lead_s`; None: never, as far as is known."""
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
        if self._means is None:
            sums = accumulate(reversed(self._sorted))
            self._means = [total / count for count, total in enumerate(sums, 1)][::-1]
        return self._means[index]


class _Smoothed:
    """A measurement that varies: its mean plus four mean deviations (RFC 6298), so that being late is the exception."""

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


class Capacity:
    """How many jobs to hold now, learned from how jobs and requests went so far."""

    def __init__(self, *, ahead_s: float, ahead_jobs: int) -> None:
        """`ahead_s` and `ahead_jobs` bound, per slot, for how long and how many jobs are held ahead. 0: none at all."""
        self._ahead_s = ahead_s
        self._ahead_jobs = ahead_jobs
        self._durations = Durations()
        self._round_trip = _Smoothed()
        self._preparation = _Smoothed()

    def ended(self, duration_s: float) -> None:
        """A job kept its slot for `duration_s`."""
        self._durations.add(duration_s)

    def answered(self, round_trip_s: float) -> None:
        """The service answered a small request that it does not hold after `round_trip_s`."""
        self._round_trip.add(round_trip_s)

    def prepared(self, preparation_s: float) -> None:
        """A job that had a free slot needed `preparation_s` until its input was ready."""
        self._preparation.add(preparation_s)

    @property
    def lead_s(self) -> float:
        """The time before a slot frees at which its next job should be asked for; 0 while no round trip is known."""
        round_trip = self._round_trip.value
        if round_trip is None or self._ahead_jobs <= 0:
            return 0.0
        return min(round_trip + (self._preparation.value or 0.0) + LATE_S, self._ahead_s)

    def wanted(self, free: int, running: Iterable[float]) -> int:
        """How many jobs should wait for a slot: one for each free one, and those that may be held ahead.

        `running` are the times for which the busy slots' jobs have run.
        """
        lead = self.lead_s
        if lead <= 0:
            return free
        jobs = free * (1 + self._ahead(0.0, lead)) if free else 0
        return jobs + sum(self._ahead(elapsed, lead) for elapsed in running)

    def due_in(self, running: Iterable[float]) -> float | None:
        """In what time a busy slot wants one more job than `wanted` says now; None: not before something happens."""
        lead = self.lead_s
        if lead <= 0:
            return None
        times = (self._durations.due_in(elapsed, lead) for elapsed in running if not self._ahead(elapsed, lead))
        return min((time for time in times if time is not None), default=None)

    def outlived_in(self, elapsed_s: float) -> float:
        """In what time a job that has run for `elapsed_s` turns out to be of another kind than the recent ones.

        From then on nothing may be held ahead of its slot, and what is held should go back.
        """
        return self._durations.longest * OUTLIVED + self.lead_s - elapsed_s

    def _ahead(self, elapsed_s: float, lead_s: float) -> int:
        residual = self._durations.residual(elapsed_s)
        if residual > lead_s + ROUNDING_S:
            return 0
        return min(1 + max(0, int((lead_s - residual) / self._durations.mean)), self._ahead_jobs)
