"""`python -m benchmarks [--only TEXT] [--runs N] [--no-reference]`: run the plan, print the table, write the report."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import uvloop

from benchmarks import report
from benchmarks.contenders import OURS, PIPELINED, RUNPOD, SEQUENTIAL, Contender, install_reference
from benchmarks.plan import PLAN
from benchmarks.scenarios import Figures, Scenario

FLOORS = {"pipelined": PIPELINED, "sequential": SEQUENTIAL}


async def measure(scenario: Scenario, contenders: list[Contender], runs: int) -> dict[str, Figures]:
    """Run the contenders in alternation and return the medians of each."""
    samples: dict[str, dict[str, list[float]]] = {contender.name: defaultdict(list) for contender in contenders}
    for run in range(runs):
        for contender in contenders:
            if contender.is_reference and run:
                continue  # one run is enough: its figures differ from ours by seconds
            for name, value in (await scenario.run(contender)).items():
                samples[contender.name][name].append(value)
    return {
        contender: {name: statistics.median(values) for name, values in figures.items()}
        for contender, figures in samples.items()
    }


async def main(args: argparse.Namespace) -> list[report.Result]:
    results = []
    for scenario in PLAN:
        if args.only and args.only.lower() not in scenario.name.lower():
            continue
        contenders = [OURS]
        if scenario.floor and not args.ours:
            contenders.append(FLOORS[scenario.floor])
        if scenario.reference and not args.no_reference and not args.ours:
            contenders.append(RUNPOD)
        result = report.Result(scenario, await measure(scenario, contenders, args.runs))
        print("\n".join(report.lines(result)), flush=True)
        results.append(result)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="only scenarios whose name has this text")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="only our worker")
    parser.add_argument("--no-reference", action="store_true", help="without the reference SDK")
    parser.add_argument("--write", type=Path, help="folder for benchmarks.md and benchmarks.png")
    options = parser.parse_args()
    if not options.no_reference and not options.ours:
        install_reference()
    all_results = uvloop.run(main(options))
    if options.write:
        report.write(all_results, options.write, options.runs)
