"""The agent's only timer: it calls the dispatcher at its next deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from runpod_worker.core.dispatch.dispatcher import Dispatcher


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
