"""`runpod-worker serve`: the job service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.cli.keys import DATA, Data
from runpod_worker.core.lifecycle import LEASE_S
from runpod_worker.log import setup


@bordered
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 lets the system choose.")] = 8000,
    data: Data = DATA,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing on disk; all is gone at the end.")] = False,
    public_url: Annotated[
        str | None, typer.Option(help="How others reach this service, for the URLs of output files.")
    ] = None,
    private_webhooks: Annotated[
        bool, typer.Option("--private-webhooks", help="Let webhooks go to private and loopback addresses.")
    ] = False,
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which the jobs of a silent worker are handed to another.")
    ] = LEASE_S,
    webhook_secret: Annotated[
        str | None,
        typer.Option(
            envvar="RUNPOD_SERVICE_WEBHOOK_SECRET", show_envvar=True, help="Sign webhooks with this whsec_... secret."
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="ERROR, WARN, INFO or DEBUG.")] = "INFO",
) -> int:
    """Run the job service: callers use http://HOST:PORT/v2/ENDPOINT/run, workers take jobs from the same address.

    An endpoint exists as soon as somebody uses its name. Without API keys the service listens on this machine only;
    make one with `runpod-worker keys create ACCOUNT --endpoint NAME`.
    """
    from runpod_worker.service.server import serve as serve_forever
    from runpod_worker.service.settings import ServiceSettings
    from runpod_worker.service.webhooks import WebhookSettings

    setup(log_level)
    settings = ServiceSettings(
        host=host,
        port=port,
        data=None if memory else Path(data),
        public_url=public_url,
        lease_s=lease,
        webhooks=WebhookSettings(private=private_webhooks, secret=webhook_secret),
    )
    serve_forever(settings, ready=lambda url: typer.echo(f"the job service listens on {url}/v2/ENDPOINT"))
    return 0
