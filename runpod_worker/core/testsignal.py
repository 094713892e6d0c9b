"""A test signal: code under test reports a moment, and a test waits for exactly that moment instead of sleeping.

After River's `testsignal`. Without a listener, as in production, `send` costs one comparison.
`runpod_worker.testing.listening` makes a signal awaitable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TestSignal(Generic[T]):
    """A moment that code reports with a value. One test listens at a time."""

    __test__ = False  # otherwise pytest collects a class of this name as a test
    __slots__ = ("_listener",)

    def __init__(self) -> None:
        self._listener: Callable[[T], object] | None = None

    def send(self, value: T) -> None:
        """Report that the moment has come, from any thread."""
        if self._listener is not None:
            self._listener(value)

    def listen(self, listener: Callable[[T], object] | None) -> None:
        """Call `listener` with each value from now on, in the thread that sends it; None ends that."""
        if listener is not None and self._listener is not None:
            raise RuntimeError("another test listens to this signal")
        self._listener = listener
