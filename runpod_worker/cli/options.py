"""Options that several commands share. A worker setting declared with `setting(..., cli=...)` gets an option too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from runpod_worker.config import WorkerSettings, options

Handler = Annotated[
    Path, typer.Argument(help="The Python file that declares the handler.", exists=True, dir_okay=False)
]
AsRunpod = Annotated[bool, typer.Option("--as-runpod", help="Let `import runpod` in the handler import this package.")]


def with_worker_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Add an option to `command` for each worker setting with `cli`. The command gets their values as `given`."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    del parameters["given"]
    names = [option.name for option in options(WorkerSettings)]
    for option in options(WorkerSettings):
        flag = typer.Option(option.flag, min=option.bounds.minimum, max=option.bounds.maximum, help=option.help)
        parameters[option.name] = inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[option.kind | None, flag]
        )

    def run(**values: Any) -> int:
        given = {name: values.pop(name) for name in names}
        return command(**values, given=given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return run
