"""`runpod-worker test`: the handler on its test input, or all of its tests, on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.cli.options import AsRunpod
from runpod_worker.cli.work import stand_for_runpod
from runpod_worker.config import environment, fill_environment
from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile import Case, hub, load_folder


@bordered
def test(
    handler: Annotated[
        Path, typer.Argument(help="The handler's file, or its folder (worker.yaml says which file).", exists=True)
    ] = Path(),
    job: Annotated[
        str | None, typer.Option("--input", "-i", help="The job as JSON, or @FILE; else test_input.json here.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The expected output as JSON, or @FILE; compared.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", "--test_full", help="Print a single run in full.")] = False,
    as_runpod: AsRunpod = False,
) -> int:
    """Run HANDLER's tests, exit 0 when all passed.

    With tests in worker.yaml or .runpod/tests.json all of them run, through a service and a worker of their own on this
    machine: each must be COMPLETED within its time, with the expected output where one is given. Without them, or with
    --input, the handler runs once, on test_input.json or --input, in this very process, so breakpoint() works.
    """
    folder = handler if handler.is_dir() else handler.parent
    file = load_folder(folder)
    handler = folder / file.handler if handler.is_dir() else handler
    if not handler.is_file():
        raise SettingsError(f"there is no handler {handler}; name it: runpod-worker test FILE.py")
    fill_environment({**hub.variables(folder), **file.env})
    stand_for_runpod(as_runpod)
    cases = [*file.tests, *(hub.cases(folder) or ())]
    if job is not None or output is not None or not cases:
        _once(handler, job, output, full=full)
    return asyncio.run(_all(handler, cases, environment()))


async def _all(handler: Path, cases: Sequence[Case], env: Mapping[str, str]) -> int:
    from runpod_worker.cli.suite import report, run_suite, summary

    width = max(len(case.name or f"test {number}") for number, case in enumerate(cases, start=1))
    verdicts = []
    async for verdict in run_suite(handler, cases, env):
        verdicts.append(verdict)
        typer.echo(report(verdict, width))
    typer.echo(summary(verdicts))
    return 1 if any(verdict.reason for verdict in verdicts) else 0


def _once(handler: Path, job: str | None, output: str | None, *, full: bool) -> NoReturn:
    command = [sys.executable, "-u", str(handler)]
    for flag, value in (("--test_input", job), ("--test_output", output)):
        if value is not None:
            command += [flag, value]
    if full:
        command.append("--test_full")
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - the very file the user named, no shell
