"""`python -m tools.trace_job [--checkout PATH] [--hops]`: count the calls and files that one job passes through.

Starts the checkout's service and worker, runs no-op jobs by /runsync, and records every call into the package in each
of the three processes. Reports the job with the fewest calls, because heartbeats and sweeps add to the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.contenders import Checkout
from benchmarks.end_to_end import RUNSYNC, site
from benchmarks.load import apply_load

ROOT = Path(__file__).parents[1]
HOOK = Path(__file__).parent / "trace"
WARM_UP_JOBS = 20
SETTLE_S = 0.05
"""The worker handles the service's answer after the caller has the result; its calls count too."""

DUMP_TIMEOUT_S = 10.0
PROCESSES = ("service", "agent", "executor")


@dataclass(frozen=True, order=True)
class Call:
    """One call of a function of the package."""

    at: int
    process: str
    file: str
    function: str


@dataclass(frozen=True)
class TracedCheckout(Checkout):
    """A checkout whose processes record their calls into a folder."""

    folder: Path = Path()

    @property
    def env(self) -> dict[str, str]:
        """The variables of a traced process."""
        return {"PYTHONPATH": f"{HOOK}:{self.root}", "TRACE_DIR": str(self.folder)}


async def trace(root: Path, jobs: int) -> list[Call]:
    """Run the jobs and return the calls of the job with the fewest, in order of time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with site(TracedCheckout("traced", root, folder=folder), folder / "site") as running:
            for _ in range(WARM_UP_JOBS):
                await apply_load(running.port, RUNSYNC, 1, 0.0)
            (folder / "start").touch()
            windows = [await _run_job(running.port) for _ in range(jobs)]
            (folder / "stop").touch()
            calls = sorted(await _read_calls(folder))
    traces = [[call for call in calls if begin <= call.at <= end] for begin, end in windows]
    return min(traces, key=len)


async def _run_job(port: int) -> tuple[int, int]:
    """Run one job and return the times when it began and was settled."""
    await asyncio.sleep(SETTLE_S)
    begin = time.monotonic_ns()
    await apply_load(port, RUNSYNC, 1, 0.0)
    await asyncio.sleep(SETTLE_S)
    return begin, time.monotonic_ns()


async def _read_calls(folder: Path) -> list[Call]:
    """Wait for the recordings of the three processes."""
    deadline = time.monotonic() + DUMP_TIMEOUT_S
    while len(files := _recordings(folder)) < len(PROCESSES):
        if time.monotonic() > deadline:
            raise RuntimeError(f"expected {len(PROCESSES)} recordings, got {len(files)}")
        await asyncio.sleep(0.05)
    recordings = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [
        Call(at, process_name(recording["argv"]), file, function)
        for recording in recordings
        for at, file, function in recording["calls"]
    ]


def _recordings(folder: Path) -> list[Path]:
    return list(folder.glob("*.json"))


def process_name(argv: Sequence[str]) -> str:
    """The process that has this command line."""
    return "service" if "serve" in argv else "agent" if "run" in argv else "executor"


def format_summary(calls: Sequence[Call]) -> Iterable[str]:
    """The numbers of calls, functions and files, in all and for each process."""
    yield f"{'':<9}{'calls':>6}{'functions':>11}{'files':>7}"
    for process in ("", *PROCESSES):
        own = [call for call in calls if process in ("", call.process)]
        functions = {(call.file, call.function) for call in own}
        files = {call.file for call in own}
        yield f"{process or 'all':<9}{len(own):>6}{len(functions):>11}{len(files):>7}"


def format_hops(calls: Iterable[Call]) -> Iterable[str]:
    """A line for each stay in a file: the process, the file and the functions called there."""
    for (process, file), stay in groupby(calls, key=lambda call: (call.process, call.file)):
        counts = [(function, len(list(run))) for function, run in groupby(call.function for call in stay)]
        functions = ", ".join(function if count == 1 else f"{function} x{count}" for function, count in counts)
        yield f"{process:<9}{file:<34} {functions}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Trace a job and print its hops."""
    parser = argparse.ArgumentParser(prog="python -m tools.trace_job", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the checkout to trace; default: this one")
    parser.add_argument("--jobs", type=int, default=10, help="jobs to trace; the one with the fewest calls is reported")
    parser.add_argument("--hops", action="store_true", help="list each stay in a file with the functions called there")
    options = parser.parse_args(arguments)
    calls = asyncio.run(trace(options.checkout.resolve(), options.jobs))
    if options.hops:
        print("\n".join(format_hops(calls)), end="\n\n")
    print("\n".join(format_summary(calls)))


if __name__ == "__main__":
    main()
