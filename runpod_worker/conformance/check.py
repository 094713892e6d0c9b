"""What a check is, and the table that its verdicts make."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Side = TypeVar("Side")
Function = Callable[[Side], Awaitable[None]]


class Unmet(Exception):
    """What was promised does not hold; the message says what was seen instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[Side]):
    """One promise. `clause` names the part of the protocol that makes it; `group` what has to be there to try it."""

    name: str
    clause: str
    group: str
    run: Function[Side]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one check: `why` is empty when it passed."""

    name: str
    clause: str
    why: str
    seconds: float


class Checks(Generic[Side]):
    """A list of checks that grows by decoration."""

    def __init__(self) -> None:
        self.all: list[Check[Side]] = []

    def __call__(self, clause: str, *, group: str = "") -> Callable[[Function[Side]], Function[Side]]:
        """Add the decorated function; its name, with spaces, is the check's."""

        def add(function: Function[Side]) -> Function[Side]:
            name = getattr(function, "__name__", "").replace("_", " ")
            self.all.append(Check(name=name, clause=clause, group=group, run=function))
            return function

        return add


def need(condition: object, why: str) -> None:
    """Raise Unmet with `why` unless the condition holds."""
    if not condition:
        raise Unmet(why)


def same(got: object, wanted: object, what: str) -> None:
    """Raise Unmet unless the two are equal, and of one type (True is not 1)."""
    if type(got) is not type(wanted) or got != wanted:
        raise Unmet(f"{what}: expected {short(wanted)}, got {short(got)}")


def short(value: object, limit: int = 160) -> str:
    """The value for one line of a table."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def line(verdict: Verdict, width: int, clauses: int) -> str:
    """One line of the table."""
    word = "FAIL" if verdict.why else "ok"
    text = f"{word:<4}  {verdict.clause:<{clauses}}  {verdict.name:<{width}}  {verdict.seconds:>6.2f} s  {verdict.why}"
    return text.rstrip()


def summary(verdicts: Sequence[Verdict]) -> str:
    """The last line of the table."""
    return f"{sum(not one.why for one in verdicts)} of {len(verdicts)} passed"
