"""What `run` can be told on its command line, and how that meets worker.yaml; `config show` takes the same options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from runpod_worker.config import WorkerSettings, fill_environment, put_on_python_path, worker_settings
from runpod_worker.workerfile import WorkerFile, beside

Handler = Annotated[
    Path, typer.Argument(help="The Python file that declares the handler.", exists=True, dir_okay=False)
]
Url = Annotated[
    str | None, typer.Option(help="Job service and endpoint: http://host:port/v2/ENDPOINT. [RUNPOD_WORKER_URL]")
]
Key = Annotated[str | None, typer.Option(help="API key of the endpoint; better in RUNPOD_AI_API_KEY than here.")]
WorkerId = Annotated[str | None, typer.Option(help="This worker's id. [RUNPOD_POD_ID]")]
Device = Annotated[str | None, typer.Option(help="auto, cuda, cuda:1, cpu or mps. [RUNPOD_WORKER_DEVICE]")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Jobs at once, instead of the handler's own number.")]
Grace = Annotated[float | None, typer.Option(min=0, help="Seconds running jobs may go on after SIGTERM.")]
AsRunpod = Annotated[
    bool, typer.Option("--as-runpod", help="Let a handler that says `import runpod` use this package, unedited.")
]
LogLevel = Annotated[str | None, typer.Option(help="ERROR, WARN, INFO or DEBUG. [RUNPOD_LOG_LEVEL]")]


def stand_for_runpod(asked: bool) -> None:
    """Where `asked`, let `import runpod` in all processes started from here find this package."""
    if asked:
        from runpod_worker.serverless import as_runpod

        put_on_python_path(as_runpod.FOLDER)


def settings_for(handler: Path, given: Mapping[str, object]) -> WorkerSettings:
    """The settings of a worker that runs `handler`: `given`, environment, the worker.yaml beside it, defaults.

    The variables of worker.yaml's `env` are in the environment afterwards, so that the handler sees them.
    """
    file = beside(handler)
    fill_environment(file.env)
    return worker_settings({name: value for name, value in given.items() if value is not None}, file=as_mapping(file))


def as_mapping(file: WorkerFile) -> dict[str, object]:
    """worker.yaml as `config` reads it."""
    mapping: dict[str, object] = msgspec.to_builtins(file)
    return mapping
