"""`runpod-worker call`: one job to an endpoint, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import runpod_worker
from runpod_worker.cli.border import bordered
from runpod_worker.core.errors import JobError, SettingsError


@bordered
def call(
    endpoint: Annotated[str, typer.Argument(help="Endpoint id, or its full URL http://host:port/v2/ENDPOINT.")],
    job_input: Annotated[
        str, typer.Argument(metavar="JSON", help="The input as JSON, @FILE, or - for standard input.")
    ],
    key: Annotated[str | None, typer.Option(help="API key; better in RUNPOD_API_KEY than here.")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the result.")] = 600,
    stream: Annotated[bool, typer.Option(help="Print each chunk as it comes, one JSON line each.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only submit; print the job's id.")] = False,
) -> int:
    """Send one job and print its output as JSON. Exits 1 when the job did not complete, with the reason on stderr."""
    base, name = _split(endpoint)
    if base:
        runpod_worker.endpoint_url_base = base
    target = runpod_worker.Endpoint(name, api_key=key)
    body = {"input": _json(job_input)}
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


def _json(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"the input is not JSON: {error}; got {text[:60]!r}") from None


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))
