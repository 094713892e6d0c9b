"""How long to wait before the next try. Pure: the caller passes the randomness and does the waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_DOUBLINGS = 64
"""The wait stops doubling after this number, before floats overflow. Every cap is reached long before."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter: try n waits a random time between 0 and `base_s` * 2**n, at most `cap_s`.

    Full jitter spreads many clients that lost the same service over the whole interval when it comes back.
    """

    base_s: float = 0.1
    cap_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError(f"base_s: expected a value above 0 and at most cap_s ({self.cap_s}), got {self.base_s}")

    def ceiling(self, tries: int) -> float:
        """The longest possible wait after this failure, which follows `tries` earlier failures in a row."""
        return min(self.cap_s, self.base_s * 2.0 ** min(max(tries, 0), MAX_DOUBLINGS))

    def delay(self, tries: int, random: Callable[[], float]) -> float:
        """Seconds to wait; `random` gives floats from 0 to 1."""
        return self.ceiling(tries) * random()


@dataclass(frozen=True, slots=True)
class Schedule:
    """A fixed list of waits. A random part of up to `spread` is added to each. After the last wait, stop."""

    delays_s: tuple[float, ...]
    spread: float = 0.1

    def __post_init__(self) -> None:
        if any(delay < 0 for delay in self.delays_s):
            raise ValueError(f"delays_s: expected no negative wait, got {self.delays_s}")

    def delay(self, tries: int, random: Callable[[], float]) -> float | None:
        """Seconds to wait after failed try number `tries` (counted from 1), None to give up."""
        if tries > len(self.delays_s):
            return None
        return self.delays_s[tries - 1] * (1 + self.spread * random())
