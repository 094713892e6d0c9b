"""The steps between the client's logic and its I/O.

The logic (`calls.py`) consists of generators that do no I/O: they yield a `Request` or a `Pause`, and are sent a
`Reply` or get a `NotSent` or `NoReply` thrown in. `blocking.py` and `aio.py` perform the steps.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

Json: TypeAlias = Any
"""JSON of the user: an input, an output or a view."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request. `path` follows the base URL and includes the query; `timeout_s` bounds the whole exchange."""

    method: str
    path: str
    timeout_s: float
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP reply. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next step."""

    seconds: float


class NotSent(Exception):
    """The request was not sent completely, so the service cannot have acted on it."""


class NoReply(Exception):
    """The request was sent, but no complete reply arrived: the service may have acted on it."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


Step: TypeAlias = Request | Pause
Flow: TypeAlias = Generator[Step, Reply | None, T]
