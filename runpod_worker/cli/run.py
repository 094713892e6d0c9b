"""`runpod-worker run`: the worker, as an image's command."""

from __future__ import annotations

from runpod_worker.cli.errors import exit_on_error
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
)
from runpod_worker.cli.work import work


@exit_on_error
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
    given = {
        "url": url,
        "api_key": key,
        "worker_id": worker_id,
        "device": device,
        "concurrency": concurrency,
        "grace_s": grace,
        "log_level": log_level,
    }
    return work(handler, given, as_runpod=as_runpod)
