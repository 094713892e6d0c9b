"""`runpod-worker call`: send one job to an endpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import runpod_worker
from runpod_worker.cli.errors import exit_on_error
from runpod_worker.core.errors import JobError, SettingsError


@exit_on_error
def call(
    endpoint: Annotated[str, typer.Argument(help="Endpoint id, or its full URL http://host:port/v2/ENDPOINT.")],
    job_input: Annotated[
        str, typer.Argument(metavar="JSON", help="The input as JSON, as @FILE, or - for standard input.")
    ],
    key: Annotated[str | None, typer.Option(help="API key. Prefer the variable RUNPOD_API_KEY.")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the result.")] = 600,
    stream: Annotated[bool, typer.Option(help="Print each chunk as it arrives, as a line of JSON.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only submit the job, and print its id.")] = False,
) -> int:
    """Send one job and print its output as JSON. Exits 1, with the reason on stderr, if the job does not complete."""
    base, name = _split(endpoint)
    if base:
        runpod_worker.endpoint_url_base = base
    target = runpod_worker.Endpoint(name, api_key=key)
    body = {"input": _parse(job_input)}
    try:
        job = target.run(body)
        if no_wait:
            typer.echo(job.job_id)
        elif stream:
            for chunk in job.stream():
                _print(chunk)
        else:
            _print(job.output(timeout=timeout))
    except JobError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _split(endpoint: str) -> tuple[str, str]:
    if "://" not in endpoint:
        return "", endpoint
    base, _, name = endpoint.rstrip("/").rpartition("/")
    return base, name


def _parse(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"the input: expected JSON, got {text[:60]!r} ({error})") from None


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))
