"""The agent's timer, which calls the dispatcher at its next deadline, and the watch for times without any timer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from runpod_worker.core.dispatch.dispatcher import Dispatcher

MAX_CHECK_S = 1.0
"""The clocks are compared at least this often."""

MIN_AWAY_S = 1.0
"""A worker that did not run for a shorter time counts as busy, not as frozen."""


class FreezeWatch:
    """Notices that this process was frozen, with its machine or container or by SIGSTOP.

    Two signs: its timer is late by more than two heartbeats, or the boot or wall clock went on while the monotonic
    clock stood still.

    Args:
        heartbeat_s: the interval of heartbeats.
        clocks: the monotonic clock, the time since boot, and the wall clock.
    """

    def __init__(self, heartbeat_s: float, clocks: Sequence[Callable[[], float]]) -> None:
        self.interval_s = min(heartbeat_s, MAX_CHECK_S)
        self._max_away_s = max(2 * heartbeat_s, MIN_AWAY_S)
        self._clocks = clocks
        self._times = [clock() for clock in clocks]

    @property
    def overdue_at(self) -> float:
        """When a missing `check` shows by itself that the process was frozen, by the monotonic clock."""
        return self._times[0] + self.interval_s + self._max_away_s

    def check(self) -> float:
        """Return for how many seconds this process did not run, or 0.0. To be called every `interval_s`."""
        times = [clock() for clock in self._clocks]
        ran_s, *passed_s = [time - before for time, before in zip(times, self._times, strict=True)]
        self._times = times
        away_s = max(ran_s - self.interval_s, *(passed - ran_s for passed in passed_s))
        return away_s if away_s > self._max_away_s else 0.0


class DeadlineTimer:
    """Updated after every turn of the loop that had events. A set timer moves only to an earlier deadline."""

    def __init__(self, dispatcher: Dispatcher, on_due: Callable[[], None], *, now: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._on_due = on_due
        self._now = now
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def update(self) -> None:
        """Follow the dispatcher's deadline. A timer that fires too early finds nothing due, and is set again."""
        deadline = self._dispatcher.next_deadline()
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0.0, math.ceil((deadline - self._now()) * 1000) / 1000)  # uvloop counts in milliseconds
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)
        self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._on_due()
