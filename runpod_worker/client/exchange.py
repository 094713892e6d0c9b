"""What the client's logic and its two faces say to each other.

The logic (`calls.py`) is written once, as generators that do no I/O: they yield a `Request` or a `Pause` and are sent a
`Reply`, or get a `NotSent` or `NoReply` thrown in. A face (`blocking.py`, `aio.py`) carries the steps out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

Json: TypeAlias = Any
"""The user's JSON: whatever a job's input, output or view holds."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. `path` is what follows the base URL, query included; `timeout_s` bounds the whole exchange."""

    method: str
    path: str
    timeout_s: float
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, read to its end. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass before the next step."""

    seconds: float


class NotSent(Exception):
    """The request did not leave, or not as a whole: the service cannot have acted on it."""


class NoReply(Exception):
    """The request may have left, and no whole reply came: the service may have acted on it."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


Step: TypeAlias = Request | Pause
Flow: TypeAlias = Generator[Step, Reply | None, T]
