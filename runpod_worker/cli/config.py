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
    """Print the value and the origin of every setting: command line, environment, worker.yaml or default.

    Accepts the options of `run`, and prints the settings that `run` would use. Secrets are hidden.
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
    """The worker, client and image settings, with hidden secrets."""
    all_env = file.env | dict(env)
    worker = resolve(WorkerSettings, given, env=all_env, file=as_mapping(file))
    worker_id = next(setting.value for setting in worker if setting.name == "worker_id")  # random by default
    used = worker_settings({**given, "worker_id": worker_id}, env=all_env, file=as_mapping(file))
    loaded = {name: resolve(cls, env=all_env) for name, cls in groups().items()}
    loaded["worker"] = [_derive(setting, getattr(used, setting.name)) for setting in worker]
    shown = {name: [_hide(setting, groups()[name], env) for setting in rows] for name, rows in loaded.items()}
    return shown | {"image": list(_image(file))}


def groups() -> dict[str, type[Any]]:
    """Every class of settings by its short name: `worker` is WorkerSettings."""
    known = {name: cls for name, cls in vars(config).items() if name.endswith("Settings") and isinstance(cls, type)}
    return {name.removesuffix("Settings").lower(): cls for name, cls in known.items()}


def _derive(setting: Loaded, used: object) -> Loaded:
    """Show the value in use. If it differs from the setting's own, it was derived from `url`."""
    return setting if used == setting.value else Loaded(setting.name, used, "url")


def _hide(setting: Loaded, cls: type[Any], env: Mapping[str, str]) -> Loaded:
    """Hide a secret, and name worker.yaml as the origin of the variables in its `env`."""
    about = {field.name: field.metadata for field in dataclasses.fields(cls)}[setting.name]
    value = HIDDEN if about.get("secret") and setting.value else setting.value
    variable = setting.origin.removeprefix("environment ")
    from_file = variable != setting.origin and not env.get(variable)
    return Loaded(setting.name, value, f"{FILE_NAME} env.{variable}" if from_file else setting.origin)


def _image(file: WorkerFile) -> Iterator[Loaded]:
    """The keys of worker.yaml for the image and the tests, which a worker does not read."""
    settings = {key.partition(".")[0] for key in file_keys(WorkerSettings)}
    empty = WorkerFile()
    for name in WorkerFile.__struct_fields__:
        value = getattr(file, name)
        if name not in settings:
            origin = "default" if value == getattr(empty, name) else f"{FILE_NAME} {name}"
            yield Loaded(name, _masked(value) if name == "env" else msgspec.to_builtins(value), origin)


def _masked(env: Mapping[str, str]) -> dict[str, str]:
    return {name: HIDDEN if is_secret(name) else value for name, value in env.items()}


def _as_json(loaded: dict[str, list[Loaded]]) -> str:
    values = {
        group: {setting.name: {"value": setting.value, "from": setting.origin} for setting in settings}
        for group, settings in loaded.items()
    }
    return json.dumps(values, indent=2, default=str)


def _as_table(loaded: dict[str, list[Loaded]]) -> str:
    rows = [
        (group, setting.name, _text(setting.value), setting.origin)
        for group, settings in loaded.items()
        for setting in settings
    ]
    name_width = max(len(row[1]) for row in rows)
    value_width = min(60, max(len(row[2]) for row in rows))
    lines: list[str] = []
    for group in loaded:
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
