"""The number of slots of an executor: fixed, or computed by the user's function from the number before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runpod_worker.config import WorkerSettings
from runpod_worker.log import log
from runpod_worker.worker.handler.kinds import Handler


class Concurrency:
    """The number of slots; `adjust` may change it."""

    def __init__(self, slots: int, modifier: Callable[[int], Any] | None = None) -> None:
        self.slots = slots
        self._modifier = modifier

    @property
    def fixed(self) -> bool:
        """Whether the number never changes."""
        return self._modifier is None

    def adjust(self) -> int:
        """Call the user's function and return the number of slots. Errors and wrong values are logged, and ignored."""
        if self._modifier is None:
            return self.slots
        try:
            wanted = self._modifier(self.slots)
        except Exception:
            log.exception("concurrency.failed", extra={"slots": self.slots})
            return self.slots
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            about = {"expected": "int >= 1", "got": repr(wanted), "type": type(wanted).__name__, "slots": self.slots}
            log.error("concurrency.refused", extra=about)
            return self.slots
        if wanted != self.slots:
            log.info("concurrency.changed", extra={"before": self.slots, "slots": wanted})
        self.slots = wanted
        return wanted


def concurrency_of(handler: Handler, settings: WorkerSettings) -> Concurrency:
    """The number of slots of a worker with this handler.

    A function that blocks its thread has one slot, even with a modifier, because its code may not be safe in several
    threads. A number in the settings is explicit, and opens threads.
    """
    if settings.concurrency is not None:
        return Concurrency(settings.concurrency)
    if handler.modifier is None:
        return Concurrency(handler.concurrency)
    if handler.kind.on_loop:
        concurrency = Concurrency(handler.concurrency, handler.modifier)
        concurrency.adjust()
        return concurrency
    log.warning(
        "concurrency.ignored",
        extra={"kind": str(handler.kind), "instead": "make the handler async, or set RUNPOD_WORKER_CONCURRENCY"},
    )
    return Concurrency(handler.concurrency)
