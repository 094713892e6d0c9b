"""`runpod-worker config`: the settings and the source of each value."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from runpod_worker import config
from runpod_worker.cli.errors import exit_on_error
from runpod_worker.cli.options import with_worker_settings
from runpod_worker.cli.worker import as_mapping
from runpod_worker.config import Loaded, WorkerSettings, environment, file_keys, resolve, worker_settings
from runpod_worker.workerfile import FILE_NAME, WorkerFile, is_secret, load_folder
from runpod_worker.workerfile.schema import as_text

HIDDEN = "(set, hidden)"

app = typer.Typer(help="Settings: their values here and the source of each.", no_args_is_help=True)


@app.command("show")
@exit_on_error
@with_worker_settings
def show(
    folder: Annotated[Path, typer.Argument(help="The folder of the handler and its worker.yaml.")] = Path(),
    *,
    given: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> int:
    """Print every setting with its value and where that came from: command line, environment, worker.yaml or default.

    It takes the options of `run` and prints what `run` would use with them. Secrets are hidden.
    """
    file = load_folder(folder if folder.is_dir() else folder.parent)
    settings = merged(file, given, environment())
    typer.echo(_as_json(settings) if as_json else _as_table(settings))
    return 0


@app.command("schema")
@exit_on_error
def schema() -> int:
    """Print the JSON Schema of worker.yaml, for editors that complete and check YAML."""
    typer.echo(as_text(), nl=False)
    return 0


def merged(file: WorkerFile, given: Mapping[str, object], env: Mapping[str, str]) -> dict[str, list[Loaded]]:
    """Worker, client and image settings as they stand here, secrets hidden."""
    all_env = file.env | dict(env)
    worker = resolve(WorkerSettings, given, env=all_env, file=as_mapping(file))
    drawn = next(one.value for one in worker if one.name == "worker_id")
    used = worker_settings({**given, "worker_id": drawn}, env=all_env, file=as_mapping(file))
    found = {name: resolve(cls, env=all_env) for name, cls in groups().items()}
    found["worker"] = [_derived(one, getattr(used, one.name)) for one in worker]
    shown = {name: [_shown(one, groups()[name], env) for one in ones] for name, ones in found.items()}
    return shown | {"image": list(_image(file))}


def groups() -> dict[str, type[Any]]:
    """Every class of settings by its name: `worker` is WorkerSettings."""
    known = {name: cls for name, cls in vars(config).items() if name.endswith("Settings") and isinstance(cls, type)}
    return {name.removesuffix("Settings").lower(): cls for name, cls in known.items()}


def _derived(one: Loaded, used: object) -> Loaded:
    """With `url` given, the four URLs come from it."""
    return one if used == one.value else Loaded(one.name, used, "url")


def _shown(one: Loaded, cls: type[Any], env: Mapping[str, str]) -> Loaded:
    about = {field.name: field.metadata for field in dataclasses.fields(cls)}[one.name]
    value = HIDDEN if about.get("secret") and one.value else one.value
    variable = one.origin.removeprefix("environment ")
    from_file = variable != one.origin and not env.get(variable)
    return Loaded(one.name, value, f"{FILE_NAME} env.{variable}" if from_file else one.origin)


def _image(file: WorkerFile) -> Iterator[Loaded]:
    """The keys of worker.yaml that no running worker reads: they are about the image and the tests."""
    settings = {key.partition(".")[0] for key in file_keys(WorkerSettings)}
    empty = WorkerFile()
    for name in WorkerFile.__struct_fields__:
        value = getattr(file, name)
        if name not in settings:
            origin = "default" if value == getattr(empty, name) else f"{FILE_NAME} {name}"
            yield Loaded(name, _masked(value) if name == "env" else msgspec.to_builtins(value), origin)


def _masked(env: Mapping[str, str]) -> dict[str, str]:
    return {name: HIDDEN if is_secret(name) else value for name, value in env.items()}


def _as_json(found: dict[str, list[Loaded]]) -> str:
    groups = {
        group: {one.name: {"value": one.value, "from": one.origin} for one in rows} for group, rows in found.items()
    }
    return json.dumps(groups, indent=2, default=str)


def _as_table(found: dict[str, list[Loaded]]) -> str:
    rows = [(group, one.name, _text(one.value), one.origin) for group, ones in found.items() for one in ones]
    name_width = max(len(row[1]) for row in rows)
    value_width = min(60, max(len(row[2]) for row in rows))
    lines: list[str] = []
    for group in found:
        lines += ["", group]
        lines += [
            f"  {name:<{name_width}}  {value:<{value_width}}  {origin}"
            for at, name, value, origin in rows
            if at == group
        ]
    return "\n".join(lines[1:])


def _text(value: object) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
