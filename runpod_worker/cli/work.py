"""What `run` does once its command line is read, and how that meets worker.yaml. Imports nothing that draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from runpod_worker.config import WorkerSettings, fill_environment, put_on_python_path, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup
from runpod_worker.workerfile import WorkerFile, load_beside


def work(handler: Path, given: Mapping[str, object], *, as_runpod: bool = False) -> int:
    """Take jobs from a job service and run them with the handler in this file; the exit status."""
    from runpod_worker.worker.launch.launch import run_handler

    setup()  # so that a warning about a setting has its form; the settings then say what else it looks like
    settings = settings_for(handler, given)
    if not settings.deployed:
        raise SettingsError(
            "no job service to take jobs from: give --url http://host:port/v2/ENDPOINT, or set RUNPOD_WEBHOOK_GET_JOB; "
            "to try the handler here: runpod-worker test " + str(handler)
        )
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    stand_for_runpod(as_runpod)
    return run_handler(handler, settings)


def stand_for_runpod(asked: bool) -> None:
    """Where `asked`, let `import runpod` in all processes started from here find this package."""
    if asked:
        from runpod_worker.serverless import as_runpod

        put_on_python_path(as_runpod.FOLDER)


def settings_for(handler: Path, given: Mapping[str, object]) -> WorkerSettings:
    """The settings of a worker that runs `handler`: `given`, environment, the worker.yaml beside it, defaults.

    The variables of worker.yaml's `env` are in the environment afterwards, so that the handler sees them.
    """
    file = load_beside(handler)
    fill_environment(file.env)
    return worker_settings({name: value for name, value in given.items() if value is not None}, file=as_mapping(file))


def as_mapping(file: WorkerFile) -> dict[str, object]:
    """worker.yaml as `config` reads it."""
    mapping: dict[str, object] = msgspec.to_builtins(file)
    return mapping
