"""docs/compatibility.md and the table for the terminal, from what both said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .comparing import Lines
from .differences import DIFFERENCES, Difference, listed
from .handlers import WORKERS

ELSEWHERE = Path(__file__).with_name("elsewhere.md")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"

HEAD = """# Compatibility with RunPod's SDK

Made by `make compat-table`; do not edit.

A handler written for RunPod's SDK runs here unedited: `import runpod_worker as runpod`, or
`runpod-worker run --as-runpod handler.py` for a file that says `import runpod`.

The same file of handlers is run by `runpod` {version} and by this package, against one job service that writes down
every request. Method, path, query and body (as JSON) of all requests about a job are compared, in their order.
**{cases} cases, {same} the same, {different} different.** The differences, each with its reason:
"""


@dataclass(frozen=True)
class Comparison:
    """What both said, by case."""

    reference: dict[str, Lines]
    ours: dict[str, Lines]

    @property
    def cases(self) -> list[str]:
        return sorted(self.reference | self.ours)

    def differing(self) -> list[str]:
        return [case for case in self.cases if self.reference.get(case) != self.ours.get(case)]


def page(found: Comparison, version: str) -> str:
    """The page."""
    different = found.differing()
    numbers = {"cases": len(found.cases), "same": len(found.cases) - len(different), "different": len(different)}
    parts = [HEAD.format(version=version, **numbers)]
    parts += [_section(one, found) for one in DIFFERENCES]
    parts += [
        ELSEWHERE.read_text(encoding="utf-8"),
        "## The same\n",
        ", ".join(f"`{one}`" for one in found.cases if one not in different) + "\n",
    ]
    return "\n".join(parts)


def _section(one: Difference, found: Comparison) -> str:
    shown = [text for case in one.cases for text in _sides(case, found)]
    return "\n".join([f"## {one.title}\n", f"{one.reason}\n", "```text", *shown, "```\n"])


def _sides(case: str, found: Comparison) -> Iterator[str]:
    yield case
    for side, lines in (("SDK ", found.reference), ("ours", found.ours)):
        yield from (f"  {side} {line}" for line in lines.get(case, ["nothing"]))


def table(found: Comparison) -> str:
    """One line for each case."""
    known, different = listed(), set(found.differing())
    rows = []
    for case in found.cases:
        verdict = "same"
        if case in different:
            verdict = f"differs: {known[case].title}" if case in known else "DIFFERS, and is not listed"
        elif case in known:
            verdict = "SAME, but is listed as different"
        rows.append(f"{case:<28} {verdict}")
    rows.append(f"\n{len(found.cases)} cases of {len(WORKERS)} workers, {len(different)} differ")
    return "\n".join(rows)


def surprises(found: Comparison) -> list[str]:
    """Differences that are not listed, and listed ones that are none."""
    different, known = set(found.differing()), set(listed())
    new = [f"{case} differs, and is not listed:\n" + "\n".join(_sides(case, found)) for case in different - known]
    return sorted(new) + sorted(f"{case} is listed as different, and is the same" for case in known - different)
