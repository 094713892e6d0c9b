"""`runpod-worker test`: run a handler on its test input, or all of its tests, on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.cli.options import AsRunpod
from runpod_worker.cli.worker import replace_runpod
from runpod_worker.config import environment, fill_environment
from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile import Case, hub, load_folder


@exit_on_error
def test(
    handler: Annotated[
        Path,
        typer.Argument(help="The handler's file, or its folder with a worker.yaml that names the file.", exists=True),
    ] = Path(),
    job: Annotated[
        str | None, typer.Option("--input", "-i", help="The job as JSON, or @FILE; default: test_input.json.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The expected output as JSON, or @FILE.")] = None,
    full: Annotated[
        bool, typer.Option("--full", "--test_full", help="Do not shorten the output of a single run.")
    ] = False,
    as_runpod: AsRunpod = False,
) -> int:
    """Run HANDLER's tests, and exit with 0 if all pass.

    The tests in worker.yaml and .runpod/tests.json run through a service and a worker on this machine. Each must be
    COMPLETED within its time, with the expected output if it names one. Without such tests, or with --input, the
    handler runs once in this process, on test_input.json or --input, so breakpoint() works.
    """
    folder = handler if handler.is_dir() else handler.parent
    file = load_folder(folder)
    handler = folder / file.handler if handler.is_dir() else handler
    if not handler.is_file():
        raise SettingsError(f"no handler {handler}; name its file: runpod-worker test FILE.py")
    fill_environment({**hub.variables(folder), **file.env})
    replace_runpod(as_runpod)
    cases = [*file.tests, *(hub.cases(folder) or ())]
    if job is not None or output is not None or not cases:
        _once(handler, job, output, full=full)
    return asyncio.run(_all(handler, cases, environment()))


async def _all(handler: Path, cases: Sequence[Case], env: Mapping[str, str]) -> int:
    from runpod_worker.cli.suite import report, run_suite, summary

    width = max(len(case.name or f"test {number}") for number, case in enumerate(cases, start=1))
    results = []
    async for result in run_suite(handler, cases, env):
        results.append(result)
        typer.echo(report(result, width))
    typer.echo(summary(results))
    return 1 if any(result.reason for result in results) else 0


def _once(handler: Path, job: str | None, output: str | None, *, full: bool) -> NoReturn:
    command = [sys.executable, "-u", "-m", "runpod_worker.cli.once", str(handler)]
    for flag, value in (("--test_input", job), ("--test_output", output)):
        if value is not None:
            command += [flag, value]
    if full:
        command.append("--test_full")
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - the file that the user named, without a shell
