"""`runpod-worker serve`: the job service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.cli.keys import DATA
from runpod_worker.config import load, warn_of_unknown
from runpod_worker.log import setup

if TYPE_CHECKING:
    from runpod_worker.service.settings import ServiceSettings


@exit_on_error
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 127.0.0.1 by default; another needs an API key.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port, 8000 by default; 0: any free one.")] = None,
    data: Annotated[
        Path | None, typer.Option(help=f"Folder of the job store and the files, {DATA} by default.")
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Keep jobs in memory only; lose them at the end.")] = False,
    public_url: Annotated[
        str | None, typer.Option(help="The address of this service in the URLs of output files, as callers reach it.")
    ] = None,
    private_webhooks: Annotated[
        bool, typer.Option("--private-webhooks", help="Allow webhooks to private and loopback addresses.")
    ] = False,
    lease: Annotated[
        float | None, typer.Option(help="Seconds until another worker gets the jobs of a silent worker.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="ERROR, WARN, INFO or DEBUG; INFO by default.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text, the default, or json: one object a line.")] = None,
) -> int:
    """Run the job service. Callers use http://HOST:PORT/v2/ENDPOINT/run, workers take jobs from the same address.

    An endpoint exists as soon as a request names it. Without API keys the service listens on this machine only; create
    a key with `runpod-worker keys create ACCOUNT --endpoint NAME`. Other settings have environment variables,
    RUNPOD_SERVICE_..., which docs/settings.md lists.
    """
    from runpod_worker.service.server import serve as serve_forever

    setup(dated=True)  # for warnings about settings
    given = {"host": host, "port": port, "data": data, "public_url": public_url, "lease_s": lease}
    settings = _settings(
        given | {"log_level": log_level, "log_format": log_format}, memory=memory, private_webhooks=private_webhooks
    )
    setup(settings.log_level, as_json=settings.log_format == "json", dated=True)
    serve_forever(settings, ready=lambda url: typer.echo(f"the job service listens on {url}/v2/ENDPOINT"))
    return 0


def _settings(given: Mapping[str, object], *, memory: bool, private_webhooks: bool) -> ServiceSettings:
    from runpod_worker.service.settings import PREFIX, ServiceSettings, WebhookSettings

    warn_of_unknown(PREFIX, (ServiceSettings, WebhookSettings))
    settings = load(ServiceSettings, given)
    webhooks = load(WebhookSettings, {"private": private_webhooks or None})
    return replace(settings, data=None if memory else settings.data or DATA, webhooks=webhooks)
