"""Reports results: lines for the terminal, a table and a picture for docs/benchmarks.md."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import blocks
from benchmarks.scenarios import Figures, Scenario


@dataclass(frozen=True)
class Result:
    """The figures of one scenario, by contender."""

    scenario: Scenario
    figures: dict[str, Figures]


def number(value: float | None) -> str:
    """Format a figure with about three digits."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def rows(result: Result) -> Iterator[list[str]]:
    """The columns: scenario, figure, ours, floor, reference, ours against the reference, target, met."""
    ours = result.figures["ours"]
    floor = next((figures for name, figures in result.figures.items() if name.startswith("floor")), {})
    reference = result.figures.get("runpod", {})
    for name, value in ours.items():
        sign, target = result.scenario.target.get(name, ("", float("nan")))
        met = "" if not sign else "yes" if (value >= target if sign == ">=" else value <= target) else "**no**"
        yield [
            result.scenario.name,
            name,
            number(value),
            number(floor.get(name)),
            number(reference.get(name)),
            ratio(name, value, reference.get(name)),
            f"{sign} {number(target)}" if sign else "",
            met,
        ]


def is_less_better(name: str) -> bool:
    """Whether a smaller figure is a better one."""
    return name.endswith((" ms", " us/job", " MiB"))


def ratio(name: str, ours: float, reference: float | None) -> str:
    """How many times better ours is than the reference."""
    if not reference or not ours or math.isnan(reference) or math.isinf(reference):
        return ""
    better = reference / ours if is_less_better(name) else ours / reference
    return f"{number(better)} x"


def lines(result: Result) -> list[str]:
    """The result as lines for the terminal."""
    return [" | ".join(row) for row in rows(result)]


def write(results: list[Result], folder: Path, runs: int) -> None:
    """Rewrite the table of benchmarks.md and the picture beside it."""
    head = ["scenario", "figure", "ours", "floor", "runpod 1.12.0", "better by", "target", "met"]
    note = f"Medians of {runs} alternating runs; one run of the reference SDK."
    body = [note, "", *blocks.table(head, [row for result in results for row in rows(result)])]
    blocks.rewrite(folder, "table", "Scenarios", body)
    picture(results, folder / "benchmarks.png")


def picture(results: list[Result], path: Path) -> None:
    """Draw one bar for each figure: how many times better than the reference, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for result in results:
        ours, reference = result.figures["ours"], result.figures.get("runpod", {})
        for name, value in ours.items():
            other = reference.get(name)
            if other and value and not math.isnan(other) and not math.isinf(other):
                better = other / value if is_less_better(name) else value / other
                bars.append((f"{result.scenario.name}: {name}", better))
    figure, axes = plt.subplots(figsize=(10, 0.42 * len(bars) + 1.2))
    names, values = zip(*reversed(bars), strict=True)
    axes.barh(names, values, color=["#2a9d8f" if value >= 1 else "#e76f51" for value in values])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    for row, value in enumerate(values):
        axes.text(value, row, f" {number(value)} x", va="center", fontsize=8)
    axes.margins(x=0.12, y=0.01)
    figure.suptitle("runpod_worker against runpod 1.12.0: how many times better")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
