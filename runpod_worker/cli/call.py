"""`runpod-worker call`: send one job to an endpoint."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import runpod_worker
from runpod_worker.cli.errors import exit_on_error
from runpod_worker.client.calls import CALL_TIMEOUT_S
from runpod_worker.config import MAX_TIME_S, is_url
from runpod_worker.core.errors import JobError, SettingsError
from runpod_worker.log import setup

if TYPE_CHECKING:
    from runpod_worker.client.blocking import Job


@exit_on_error
def call(
    endpoint: Annotated[str, typer.Argument(help="Endpoint id, or its full URL http://host:port/v2/ENDPOINT.")],
    job_input: Annotated[
        str, typer.Argument(metavar="JSON", help="The input as JSON, as @FILE, or - for standard input.")
    ],
    key: Annotated[str | None, typer.Option(help="API key. Prefer the variable RUNPOD_API_KEY.")] = None,
    timeout: Annotated[float, typer.Option(min=0, max=MAX_TIME_S, help="Seconds to wait for the result.")] = 600,
    stream: Annotated[
        bool, typer.Option(help="Print each chunk as it arrives, as a line of JSON; without chunks, the output.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only submit the job, and print its id.")] = False,
) -> int:
    """Send one job and print its output as JSON. Exits 1, with the reason on stderr, if the job does not complete."""
    setup()  # a service that cannot be reached is reported at once, not after the last try
    until = time.monotonic() + timeout
    base, name = _split(endpoint)
    if base:
        runpod_worker.endpoint_url_base = base
    target = runpod_worker.Endpoint(name, api_key=key)
    body = {"input": _parse(job_input)}
    try:
        client = target.rp_client
        job = target.job(client.perform(client.calls.submit(name, body, min(timeout, CALL_TIMEOUT_S))))
        if no_wait:
            typer.echo(job.job_id)
        elif not (stream and _print_chunks(job)):
            _print(job.output(timeout=max(0.0, until - time.monotonic())))
    except JobError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _split(endpoint: str) -> tuple[str, str]:
    base, _, name = endpoint.rstrip("/").rpartition("/")
    if not (is_url(base) if "/" in endpoint else name):
        raise SettingsError(f"ENDPOINT: expected an id or http(s)://host[:port]/v2/ENDPOINT, got {endpoint!r}")
    return base, name


def _print_chunks(job: Job) -> bool:
    """Print the chunks of the job as they arrive; return whether there were any."""
    streamed = False
    for chunk in job.stream():
        streamed = True
        _print(chunk)
    return streamed


def _parse(text: str) -> Any:
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = _read(Path(text[1:]))
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SettingsError(f"the input: expected JSON, got {text[:60]!r} ({error})") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SettingsError(f"the input: expected a file of UTF-8 text, got {str(file)!r} ({error})") from None


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))
