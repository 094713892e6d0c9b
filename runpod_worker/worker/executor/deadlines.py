"""Stops the jobs that are out of time."""

from __future__ import annotations

import math
import threading

from runpod_worker.worker.executor.attempt import Attempt, now


class Deadlines:
    """One thread that sleeps until the earliest deadline; it is started by the first job that has one."""

    def __init__(self) -> None:
        self._watched: dict[str, Attempt] = {}
        self._changed = threading.Condition()
        self._wake_at = math.inf
        self._thread: threading.Thread | None = None
        self._open = True

    def add(self, attempt: Attempt) -> None:
        """Stop the job when its deadline comes."""
        if attempt.deadline is None:
            return
        self._watched[attempt.key] = attempt
        if attempt.deadline < self._wake_at:  # else the thread looks again early enough
            self._notify()

    def remove(self, attempt: Attempt) -> None:
        """The job ended."""
        if attempt.deadline is not None:
            self._watched.pop(attempt.key, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _notify(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="runpod-worker-deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _work(self) -> None:
        with self._changed:
            while self._open:
                self._wake_at = math.inf  # who adds from here on notifies, and waits for this thread to wait
                for attempt in list(self._watched.values()):
                    self._look_at(attempt)
                self._changed.wait(None if self._wake_at == math.inf else max(0.0, self._wake_at - now()))

    def _look_at(self, attempt: Attempt) -> None:
        assert attempt.deadline is not None  # noqa: S101 - `add` has looked
        if attempt.deadline > now():
            self._wake_at = min(self._wake_at, attempt.deadline)
        elif attempt.reason is None:
            attempt.stop(attempt.limit, timed_out=True)
