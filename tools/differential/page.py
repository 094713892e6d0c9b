"""Renders docs/compatibility.md, and the table for the terminal, from a comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .comparing import Lines
from .differences import DIFFERENCES, Difference, listed
from .handlers import WORKERS

ELSEWHERE = Path(__file__).with_name("elsewhere.md")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
RECORDED = Path(__file__).with_name("reference.json")
"""The lines of the reference SDK, so that a test compares ours with them in seconds and without the SDK."""

HEAD = """# Compatibility with RunPod's SDK

Made by `make compat-table`; do not edit.

A handler written for RunPod's SDK runs here after one change, `import runpod_worker as runpod`, or unchanged with
`runpod-worker run --as-runpod handler.py`.

This page compares the two. `runpod` {version} and this package run the same file of handlers against one job service,
which records every request. Method, path, query and body (as JSON) of all requests about a job are compared, in order.
**{cases} cases: {same} the same, {different} different.** Each difference has its reason:
"""


@dataclass(frozen=True)
class Comparison:
    """The requests of both, by case."""

    reference: dict[str, Lines]
    ours: dict[str, Lines]

    @property
    def cases(self) -> list[str]:
        return sorted(self.reference | self.ours)

    def differing(self) -> list[str]:
        return [case for case in self.cases if self.reference.get(case) != self.ours.get(case)]


def load_reference() -> dict[str, Lines]:
    """The recorded lines of the reference SDK, by case."""
    lines: dict[str, Lines] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return lines


def save_reference(lines: dict[str, Lines]) -> None:
    """Record the lines of the reference SDK."""
    RECORDED.write_text(json.dumps(lines, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def page(comparison: Comparison, version: str) -> str:
    """The page."""
    different = comparison.differing()
    numbers = {
        "cases": len(comparison.cases),
        "same": len(comparison.cases) - len(different),
        "different": len(different),
    }
    parts = [HEAD.format(version=version, **numbers)]
    parts += [_section(difference, comparison) for difference in DIFFERENCES]
    parts += [
        ELSEWHERE.read_text(encoding="utf-8"),
        "## The same\n",
        ", ".join(f"`{case}`" for case in comparison.cases if case not in different) + "\n",
    ]
    return "\n".join(parts)


def _section(difference: Difference, comparison: Comparison) -> str:
    shown = [text for case in difference.cases for text in _sides(case, comparison)]
    return "\n".join([f"## {difference.title}\n", f"{difference.reason}\n", "```text", *shown, "```\n"])


def _sides(case: str, comparison: Comparison) -> Iterator[str]:
    yield case
    for side, lines in (("SDK ", comparison.reference), ("ours", comparison.ours)):
        yield from (f"  {side} {line}" for line in lines.get(case, ["nothing"]))


def table(comparison: Comparison) -> str:
    """One line for each case."""
    known, different = listed(), set(comparison.differing())
    rows = []
    for case in comparison.cases:
        verdict = "same"
        if case in different:
            verdict = f"differs: {known[case].title}" if case in known else "DIFFERS, and is not listed"
        elif case in known:
            verdict = "SAME, but is listed as different"
        rows.append(f"{case:<28} {verdict}")
    rows.append(f"\n{len(comparison.cases)} cases of {len(WORKERS)} workers, {len(different)} differ")
    return "\n".join(rows)


def surprises(comparison: Comparison) -> list[str]:
    """Differences that are not listed, and listed cases that are the same."""
    different, known = set(comparison.differing()), set(listed())
    new = [f"{case} differs, and is not listed:\n" + "\n".join(_sides(case, comparison)) for case in different - known]
    return sorted(new) + sorted(f"{case} is listed as different, and is the same" for case in known - different)
