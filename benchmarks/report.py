"""What came out: lines for the terminal, a table and a picture for the docs."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenarios import Figures, Scenario


@dataclass(frozen=True)
class Result:
    scenario: Scenario
    figures: dict[str, Figures]


def number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def rows(result: Result) -> Iterator[list[str]]:
    """scenario, figure, ours, floor, reference, ours against the reference, target, met"""
    ours = result.figures["ours"]
    floor = next((figures for who, figures in result.figures.items() if who.startswith("floor")), {})
    peer = result.figures.get("runpod", {})
    for name, value in ours.items():
        sign, wanted = result.scenario.target.get(name, ("", float("nan")))
        met = "" if not sign else "yes" if (value >= wanted if sign == ">=" else value <= wanted) else "**no**"
        yield [
            result.scenario.name,
            name,
            number(value),
            number(floor.get(name)),
            number(peer.get(name)),
            ratio(name, value, peer.get(name)),
            f"{sign} {number(wanted)}" if sign else "",
            met,
        ]


def cheaper(name: str) -> bool:
    """Whether less of it is better."""
    return name.endswith((" ms", " us/job"))


def ratio(name: str, ours: float, peer: float | None) -> str:
    if not peer or not ours or math.isnan(peer) or math.isinf(peer):
        return ""
    better = peer / ours if cheaper(name) else ours / peer
    return f"{number(better)} x"


def lines(result: Result) -> list[str]:
    return [" | ".join(row) for row in rows(result)]


def write(results: list[Result], folder: Path, runs: int) -> None:
    head = ["scenario", "figure", "ours", "floor", "runpod 1.12.0", "better by", "target", "met"]
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    table += ["| " + " | ".join(row) + " |" for result in results for row in rows(result)]
    text = (folder / "benchmarks.md").read_text("utf-8") if (folder / "benchmarks.md").exists() else "# Benchmarks\n"
    begin, end = "<!-- table -->", "<!-- end of table -->"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    when = datetime.datetime.now(tz=datetime.UTC).date()
    note = f"{when}, {machine}; medians of {runs} runs in alternation (the reference SDK once)."
    block = f"{begin}\n\n{note}\n\n" + "\n".join(table) + f"\n\n{end}"
    (folder / "benchmarks.md").write_text(before + block + after, "utf-8")
    picture(results, folder / "benchmarks.png")


def picture(results: list[Result], path: Path) -> None:
    """One bar a figure: how many times better than the reference, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for result in results:
        ours, peer = result.figures["ours"], result.figures.get("runpod", {})
        for name, value in ours.items():
            other = peer.get(name)
            if other and value and not math.isnan(other) and not math.isinf(other):
                better = other / value if cheaper(name) else value / other
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
