"""`runpod-worker run`: the worker, as an image's command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.config import worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup

Handler = Annotated[Path, typer.Argument(help="The Python file that declares the handler.", exists=True, dir_okay=False)]


@bordered
def run(
    handler: Handler,
    url: Annotated[
        str | None, typer.Option(help="Job service and endpoint: http://host:port/v2/ENDPOINT. [RUNPOD_WORKER_URL]")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="API key of the endpoint; better in RUNPOD_AI_API_KEY than here.")
    ] = None,
    worker_id: Annotated[str | None, typer.Option(help="This worker's id. [RUNPOD_POD_ID]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, cuda:1, cpu or mps. [RUNPOD_WORKER_DEVICE]")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once, instead of the handler's own number.")
    ] = None,
    grace: Annotated[
        float | None, typer.Option(min=0, help="Seconds running jobs may go on after SIGTERM.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="ERROR, WARN, INFO or DEBUG. [RUNPOD_LOG_LEVEL]")] = None,
) -> int:
    """Take jobs from a job service and run them with HANDLER.

    Where jobs come from: `--url`, or the RUNPOD_WEBHOOK_* variables that RunPod's cloud sets. The model is loaded once,
    before the first job. SIGTERM stops taking, finishes what runs, and exits 0. A handler process that dies is replaced.
    """
    from runpod_worker.worker.launch import run_handler

    given = {
        "url": url,
        "api_key": key,
        "worker_id": worker_id,
        "device": device,
        "concurrency": concurrency,
        "grace_s": grace,
        "log_level": log_level,
    }
    settings = worker_settings({name: value for name, value in given.items() if value is not None})
    if not settings.deployed:
        raise SettingsError(
            "no job service to take jobs from: give --url http://host:port/v2/ENDPOINT, or set RUNPOD_WEBHOOK_GET_JOB; "
            "to try the handler here: runpod-worker test " + str(handler)
        )
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    return run_handler(handler, settings)
