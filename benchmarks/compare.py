"""Compare this checkout with a baseline: the same scenarios, in alternating runs, each side in its own environment.

`python -m benchmarks.compare --base PATH [--rounds 5] [--rows no-op runsync] [--seconds 5]`: prints the median of each
figure on both sides and their ratio, and marks a figure that is more than 5 % worse. The scenarios come from this
checkout; PATH/.venv/bin/python and the package in PATH run the baseline. The exit status is 1 if a figure is marked.

Process start includes the interpreter's own: give both sides equal environments, or --python.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks import scenarios
from benchmarks.blocks import table
from benchmarks.contenders import PIPELINED, Checkout, Contender
from benchmarks.end_to_end import CALLERS, RUNSYNC, site
from benchmarks.load import apply_load
from benchmarks.report import is_less_better, number
from benchmarks.scenarios import Figures

THIS = Path(__file__).parents[1]
MAX_WORSE_PERCENT = 5.0
"""A figure that is worse by more than this is marked."""

TOO_SMALL = ("gap p50 ms",)
"""Figures of a few microseconds, which differ by more than that from run to run."""

HEAD = ["row", "figure", "base", "now", "now / base", "floor", "verdict"]


@dataclass(frozen=True)
class Row:
    """One scenario. `run` measures a worker; `run_site` measures a service with its worker."""

    name: str
    run: Callable[[Contender], Awaitable[Figures]] | None = None
    run_site: Callable[[Checkout], Awaitable[Figures]] | None = None
    has_floor: bool = False

    async def measure(self, side: Checkout) -> Figures:
        """Measure one side once."""
        if self.run_site is not None:
            return await self.run_site(side)
        figures = await self.run(side.worker()) if self.run is not None else {}
        return {name: value for name, value in figures.items() if name not in TOO_SMALL}

    async def measure_floor(self) -> Figures:
        """Measure the floor once; nothing if the row has none."""
        return await self.run(PIPELINED) if self.run is not None and self.has_floor else {}


@dataclass(frozen=True)
class Result:
    """The medians of one row."""

    row: Row
    base: Figures
    now: Figures
    floor: Figures

    def worse_percent(self, figure: str) -> float:
        """By how many per cent this checkout is worse than the baseline; negative if it is better."""
        base, now = self.base[figure], self.now[figure]
        if not base or math.isnan(base) or math.isnan(now):
            return float("nan")
        change = now / base - 1
        return 100 * (change if is_less_better(figure) else -change)

    def marked(self) -> list[str]:
        """The figures that are worse than they may be."""
        return [figure for figure in self.now if self.worse_percent(figure) > MAX_WORSE_PERCENT]

    def lines(self) -> Iterator[list[str]]:
        """The lines of the table."""
        for figure in self.now:
            base, now = self.base[figure], self.now[figure]
            ratio = number(now / base) if base else "-"
            verdict = f"**{self.worse_percent(figure):.0f} % worse**" if figure in self.marked() else ""
            yield [self.row.name, figure, number(base), number(now), ratio, number(self.floor.get(figure)), verdict]


def all_rows(seconds: float, data_in: Path) -> list[Row]:
    """The rows in the order of the table. `seconds` scales how long each takes."""
    jobs = round(40 * seconds)
    sync_noop = scenarios.backlog("noop", round(8_000 * seconds) + 8_000, 1, seconds + 1.0)
    workers = {n: scenarios.backlog("noop_async", round(16_000 * seconds) + 16_000, n, seconds + 1.0) for n in (8, 32)}
    return [
        Row("no-op, sync, 1 slot", sync_noop, has_floor=True),
        Row("no-op, async, 8 slots", workers[8], has_floor=True),
        Row("no-op, async, 32 slots", workers[32], has_floor=True),
        Row("50 ms jobs, 1 slot", scenarios.busy_device("sleep", 0.05, jobs // 2 + 4)),
        Row("idle worker, one job", scenarios.wake_up(jobs + 4)),
        Row("stream, one post per chunk", scenarios.stream()),
        Row("process start", scenarios.start_up),
        Row("/runsync end to end", run_site=lambda side: end_to_end(side, seconds, data_in)),
    ]


async def end_to_end(side: Checkout, seconds: float, data_in: Path) -> Figures:
    """No-op jobs by /runsync with 1, 16 and 64 callers, then the memory of service and agent."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=data_in) as folder:
        async with site(side, Path(folder) / "site") as running:
            for callers in CALLERS:
                load = await apply_load(running.port, RUNSYNC, callers, seconds / 2)
                figures[f"{callers} callers, requests/s"] = load.requests_per_s
                figures[f"{callers} callers, p50 ms"] = load.p50_ms
            figures |= {f"{process}'s memory, MiB": size for process, size in running.resident_mib().items()}
    return figures


async def compare(rows: Sequence[Row], sides: Sequence[Checkout], rounds: int) -> list[Result]:
    """Measure the rows, the sides in alternation, and print each round's progress to standard error."""
    base, now = sides
    results = []
    for row in rows:
        samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for round_number in range(rounds):
            print(f"{row.name}: round {round_number + 1} of {rounds}", file=sys.stderr, flush=True)
            for side in (base, now) if round_number % 2 == 0 else (now, base):
                collect(samples[side.name], await row.measure(side))
            collect(samples["floor"], await row.measure_floor())
        medians = {name: medians_of(figures) for name, figures in samples.items()}
        result = Result(row, medians[base.name], medians[now.name], medians["floor"])
        print("\n".join("| " + " | ".join(line) + " |" for line in result.lines()), file=sys.stderr, flush=True)
        results.append(result)
    return results


def collect(samples: dict[str, list[float]], figures: Figures) -> None:
    """Add the figures of one run to the samples."""
    for name, value in figures.items():
        samples[name].append(value)


def medians_of(samples: Mapping[str, Sequence[float]]) -> Figures:
    """The median of each figure."""
    return {name: statistics.median(values) for name, values in samples.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="the baseline's checkout")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose name contains one of these words")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each run takes, roughly")
    parser.add_argument("--python", help="run both sides with this interpreter; default: PATH/.venv/bin/python")
    parser.add_argument("--data-in", type=Path, default=THIS, help="the disk for the jobs of the end-to-end rows")
    options = parser.parse_args(arguments)
    rows = [
        row
        for row in all_rows(options.seconds, options.data_in)
        if not options.rows or any(word.lower() in row.name.lower() for word in options.rows)
    ]
    sides = [Checkout("base", options.base.resolve(), options.python), Checkout("now", THIS, options.python)]
    results = uvloop.run(compare(rows, sides, options.rounds))
    print("\n".join(table(HEAD, [line for result in results for line in result.lines()])))
    marked = [f"{result.row.name}: {figure}" for result in results for figure in result.marked()]
    print(f"\nmore than {MAX_WORSE_PERCENT:g} % worse: {', '.join(marked) or 'none'}")
    return 1 if marked else 0


if __name__ == "__main__":
    sys.exit(main())
