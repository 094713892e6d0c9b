"""Decides where `python handler.py` runs: behind a job service, or once, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from runpod_worker.config import WorkerSettings, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup
from runpod_worker.worker.handler.declaration import Declaration
from runpod_worker.worker.launch import flags, local


def start(declare: Callable[[], Declaration], given: Mapping[str, object]) -> int:
    """Run the declared worker with the command line, the environment and `given`; return the exit code."""
    setup()  # for warnings while settings are read; `run` then sets the format that they choose
    parsed = flags.take(sys.argv)
    return run(declare, parsed, worker_settings({"log_level": parsed.rp_log_level, **given}))


def run(declare: Callable[[], Declaration], parsed: flags.Flags, settings: WorkerSettings) -> int:
    """Run the declared worker with these flags and settings; return the exit code.

    Raises:
        DeclarationError: the declaration is invalid; nothing was started.
        SettingsError: `--rp_serve_api` was given, which only `runpod_worker.serverless` can serve.
    """
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    declaration = declare()
    if parsed.rp_serve_api:
        raise SettingsError("--rp_serve_api: there is no local API here; use `runpod-worker dev` instead")
    if parsed.test_input is not None or not settings.deployed:
        return local.run(declaration, settings, parsed.test_input, parsed.test_output, full=parsed.test_full)
    from runpod_worker.worker.launch.launch import run_with_agent

    return run_with_agent(declare, settings)
