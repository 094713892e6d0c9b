"""`runpod-worker run`: the worker, as an image's command."""

from __future__ import annotations

from runpod_worker.cli.border import bordered
from runpod_worker.cli.options import (
    AsRunpod,
    Concurrency,
    Device,
    Grace,
    Handler,
    Key,
    LogLevel,
    Url,
    WorkerId,
    settings_for,
    stand_for_runpod,
)
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup


@bordered
def run(
    handler: Handler,
    url: Url = None,
    key: Key = None,
    worker_id: WorkerId = None,
    device: Device = None,
    concurrency: Concurrency = None,
    grace: Grace = None,
    log_level: LogLevel = None,
    as_runpod: AsRunpod = False,
) -> int:
    """Take jobs from a job service and run them with HANDLER.

    Where jobs come from: `--url`, or the RUNPOD_WEBHOOK_* variables that RunPod's cloud sets. The model is loaded once,
    before the first job. SIGTERM stops taking, finishes what runs, and exits 0. A handler process that dies is
    replaced. A worker.yaml beside HANDLER is read too.
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
    settings = settings_for(handler, given)
    if not settings.deployed:
        raise SettingsError(
            "no job service to take jobs from: give --url http://host:port/v2/ENDPOINT, or set RUNPOD_WEBHOOK_GET_JOB; "
            "to try the handler here: runpod-worker test " + str(handler)
        )
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    stand_for_runpod(as_runpod)
    return run_handler(handler, settings)
