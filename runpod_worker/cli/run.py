"""`runpod-worker run`: the worker, as an image's command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.cli.options import AsRunpod, Handler, with_worker_settings
from runpod_worker.cli.worker import run_worker


@exit_on_error
@with_worker_settings
def run(
    handler: Handler,
    arguments: Annotated[list[str] | None, typer.Argument(help="Arguments of HANDLER, after `--`.")] = None,
    *,
    given: dict[str, Any],
    as_runpod: AsRunpod = False,
) -> int:
    """Take jobs from a job service and run them with HANDLER.

    Jobs come from `--url`, or from the RUNPOD_WEBHOOK_* variables that RunPod's cloud sets. The model is loaded once,
    before the first job. On SIGTERM the worker takes no more jobs, finishes those that run, and exits 0. A handler
    process that dies is replaced. The worker.yaml beside HANDLER is read too.
    """
    return run_worker(handler, given, as_runpod=as_runpod, arguments=arguments or ())
