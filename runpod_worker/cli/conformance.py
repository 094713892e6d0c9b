"""`runpod-worker conformance`: check a job service or a worker against the protocol."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.config import environment, is_url
from runpod_worker.core.errors import SettingsError

if TYPE_CHECKING:
    from runpod_worker.conformance.check import CheckResult


@exit_on_error
def conformance(
    url: Annotated[
        str | None, typer.Argument(help="Check the service of this endpoint: http://host:port/v2/ENDPOINT.")
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="Check the worker that CMD starts; {handler} and {sdk_handler} become paths."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key of the endpoint.")] = None,
    lease: Annotated[
        float | None, typer.Option(min=0.1, help="The service's lease in seconds; adds the checks of lost workers.")
    ] = None,
    slow: Annotated[bool, typer.Option("--slow", help="Add the checks of time limits (about 20 seconds).")] = False,
    only: Annotated[str, typer.Option(metavar="WORDS", help="Run only checks with these words in their names.")] = "",
) -> int:
    """Check a job service by playing callers and workers, or a worker by playing the service. Exits 1 if a check fails.

    The endpoint must have no other workers and jobs. CMD must run the conformance handler (docs/conformance.md):
    {handler} becomes the path of that handler for this package, {sdk_handler} its path for RunPod's SDK:

    runpod-worker conformance --worker "runpod-worker run {handler}"
    """
    if (url is None) == (worker is None):
        raise SettingsError("give the URL of an endpoint, or --worker CMD")
    names, results = _service(url, key, lease, slow, only) if url else _worker(worker or "", only)
    return asyncio.run(_show(names, results))


def _service(
    url: str, key: str | None, lease: float | None, slow: bool, only: str
) -> tuple[list[tuple[str, str]], AsyncIterator[CheckResult]]:
    from runpod_worker.conformance.service_runner import run_checks, select
    from runpod_worker.conformance.suites import SERVICE

    if not is_url(url):
        raise SettingsError(f"URL: expected http(s)://host[:port]/v2/ENDPOINT, got {url!r}")
    selected = select(SERVICE, key=bool(key), lease=bool(lease), slow=slow)
    checks = [check for check in selected if only in check.name]
    return [(check.name, check.clause) for check in checks], run_checks(url, checks, key=key, lease_s=lease)


def _worker(command: str, only: str) -> tuple[list[tuple[str, str]], AsyncIterator[CheckResult]]:
    from runpod_worker.conformance.suites import WORKER
    from runpod_worker.conformance.worker_runner import WorkerRunner

    checks = [check for check in WORKER if only in check.name]
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"--worker: expected a shell command, got {command!r} ({error})") from None
    runner = WorkerRunner(arguments, environment())
    return [(check.name, check.clause) for check in checks], runner.run(checks)


async def _show(checks: Sequence[tuple[str, str]], results: AsyncIterator[CheckResult]) -> int:
    from runpod_worker.conformance.check import format_line, format_summary

    if not checks:
        raise SettingsError("--only: no check has these words in its name")
    width, clauses = max(len(name) for name, _ in checks), max(len(clause) for _, clause in checks)
    received = []
    async for result in results:
        received.append(result)
        typer.echo(format_line(result, width, clauses))
    typer.echo(format_summary(received))
    return 1 if any(result.failure for result in received) else 0
