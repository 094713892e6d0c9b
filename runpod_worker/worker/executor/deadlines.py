"""Stops the jobs whose deadline has passed."""

from __future__ import annotations

import math
import threading

from runpod_worker.worker.executor.attempt import Attempt, now


class Deadlines:
    """A thread that sleeps until the earliest deadline. The first job with a deadline starts it."""

    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._changed = threading.Condition()
        self._wake_at = math.inf
        self._thread: threading.Thread | None = None
        self._open = True

    def add(self, attempt: Attempt) -> None:
        """Stop the job at its deadline."""
        if attempt.deadline is None:
            return
        self._attempts[attempt.key] = attempt
        if attempt.deadline < self._wake_at:  # else the thread wakes early enough
            with self._changed:
                self._start()
                self._changed.notify()

    def remove(self, attempt: Attempt) -> None:
        """Remove a job that has ended."""
        if attempt.deadline is not None:
            self._attempts.pop(attempt.key, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="runpod-worker-deadlines", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with self._changed:
            while self._open:
                self._wake_at = math.inf  # from here on `add` notifies, and waits until this thread waits
                for attempt in list(self._attempts.values()):
                    self._check(attempt)
                self._changed.wait(None if self._wake_at == math.inf else max(0.0, self._wake_at - now()))

    def _check(self, attempt: Attempt) -> None:
        if attempt.deadline is None or attempt.stop_reason is not None:
            return
        if attempt.deadline > now():
            self._wake_at = min(self._wake_at, attempt.deadline)
        else:
            attempt.stop(attempt.deadline_error, timed_out=True)
