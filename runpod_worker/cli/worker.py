"""What `run` does with its options, and the settings of worker.yaml. Does not import typer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from runpod_worker.config import WorkerSettings, fill_environment, put_on_python_path, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup
from runpod_worker.workerfile import WorkerFile, load_beside


def run_worker(
    handler: Path, given: Mapping[str, object], *, as_runpod: bool = False, arguments: Sequence[str] = ()
) -> int:
    """Take jobs from a job service and run them with the handler in this file; return the exit status.

    `arguments` go to the handler's file.
    """
    from runpod_worker.worker.launch.launch import run_handler

    setup()  # for warnings about settings, until the settings set the level and format
    settings = settings_for(handler, given)
    if not settings.deployed:
        raise SettingsError(
            "no job service to take jobs from: give --url http://host:port/v2/ENDPOINT, or set RUNPOD_WEBHOOK_GET_JOB; "
            "to run the handler on this machine: runpod-worker test " + str(handler)
        )
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    replace_runpod(as_runpod)
    return run_handler(handler, settings, arguments)


def replace_runpod(enabled: bool) -> None:
    """If `enabled`, let `import runpod` import this package in every process started from here."""
    if enabled:
        from runpod_worker.serverless import as_runpod

        put_on_python_path(as_runpod.FOLDER)


def settings_for(handler: Path, given: Mapping[str, object]) -> WorkerSettings:
    """The settings of a worker that runs `handler`: from `given`, the environment, its worker.yaml and defaults.

    Sets the variables in worker.yaml's `env`, for the handler too.
    """
    file = load_beside(handler)
    fill_environment(file.env)
    return worker_settings({name: value for name, value in given.items() if value is not None}, file=as_mapping(file))


def as_mapping(file: WorkerFile) -> dict[str, object]:
    """worker.yaml in the form that `config` reads."""
    mapping: dict[str, object] = msgspec.to_builtins(file)
    return mapping
