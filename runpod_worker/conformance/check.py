"""Checks, their results, and the table of results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Subject = TypeVar("Subject")
CheckFunction = Callable[[Subject], Awaitable[None]]


class RequirementFailed(Exception):
    """A promise does not hold; the message describes the observed behaviour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[Subject]):
    """One promise. `clause` names the part of the protocol that makes it; `group` names the set-up of the check."""

    name: str
    clause: str
    group: str
    run: CheckFunction[Subject]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: `failure` is empty when it passed."""

    name: str
    clause: str
    failure: str
    seconds: float


class Checks(Generic[Subject]):
    """A list of checks; decorating a function adds it."""

    def __init__(self) -> None:
        self.all: list[Check[Subject]] = []

    def __call__(self, clause: str, *, group: str = "") -> Callable[[CheckFunction[Subject]], CheckFunction[Subject]]:
        """Add the decorated function under its name, with spaces for underscores."""

        def add(function: CheckFunction[Subject]) -> CheckFunction[Subject]:
            name = getattr(function, "__name__", "").replace("_", " ")
            self.all.append(Check(name=name, clause=clause, group=group, run=function))
            return function

        return add


def require(condition: object, failure: str) -> None:
    """Raise RequirementFailed with this message unless the condition holds."""
    if not condition:
        raise RequirementFailed(failure)


def require_equal(actual: object, expected: object, what: str) -> None:
    """Raise RequirementFailed unless the two are equal and of one type (True is not 1)."""
    if type(actual) is not type(expected) or actual != expected:
        raise RequirementFailed(f"{what}: expected {truncate(expected)}, got {truncate(actual)}")


def truncate(value: object, max_chars: int = 160) -> str:
    """The value's repr, cut after `max_chars` to fit a line of the table."""
    text = repr(value)
    return text if len(text) <= max_chars else f"{text[:max_chars]}… ({len(text)} characters)"


def format_line(result: CheckResult, name_width: int, clause_width: int) -> str:
    """One line of the table."""
    word = "FAIL" if result.failure else "ok"
    columns = f"{word:<4}  {result.clause:<{clause_width}}  {result.name:<{name_width}}  {result.seconds:>6.2f} s"
    return f"{columns}  {result.failure}".rstrip()


def format_summary(results: Sequence[CheckResult]) -> str:
    """The last line of the table."""
    return f"{sum(not result.failure for result in results)} of {len(results)} passed"
