"""Where `python handler.py` runs: behind a job service, behind a local API, or once, here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from runpod_worker.config import WorkerSettings, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup
from runpod_worker.worker.launch import flags, local

if TYPE_CHECKING:
    from runpod_worker.worker.worker import Worker

ServeApi = Callable[["Worker", flags.Flags, WorkerSettings], int]

serve_api: list[ServeApi] = []
"""Who serves `--rp_serve_api`: the last one. The worker itself cannot, since it does not know the job service."""


def start(worker: Worker, given: Mapping[str, object]) -> int:
    """Run the worker as flags, environment and `given` say; return the exit code."""
    setup()  # so that a warning about a setting has its form; `run` sets up what the settings say
    told = flags.take(sys.argv)
    return run(worker, told, worker_settings({"log_level": told.rp_log_level, **given}))


def run(worker: Worker, told: flags.Flags, settings: WorkerSettings) -> int:
    """Run the worker as these flags and settings say; return the exit code."""
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    worker.declaration()  # what is wrong with it is said before anything is started
    if told.rp_serve_api:
        if not serve_api:
            raise SettingsError("--rp_serve_api: there is no local API here; use `runpod-worker dev` instead")
        return serve_api[-1](worker, told, settings)
    if told.test_input is not None or not settings.deployed:
        return local.run(worker, settings, told.test_input, told.test_output, full=told.test_full)
    from runpod_worker.worker.launch.launch import run_with_agent

    return run_with_agent(worker, settings)
