"""The contents of an image, from worker.yaml and its folder; errors are raised before a builder starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runpod_worker.core.errors import BuildError
from runpod_worker.workerfile import Model, WorkerFile, is_secret

BASE = "runpod-worker-base"
NEVER = ("Dockerfile", "__pycache__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The contents of the Dockerfile, as plain values."""

    base: str
    python: str | None
    system: tuple[str, ...]
    requirements_file: str | None
    packages: tuple[str, ...]
    hub_models: tuple[Model, ...]
    model_folders: tuple[str, ...]
    """Top folders with models. They get their own layer; `files` and `folders` then list the other contents."""
    files: tuple[str, ...]
    folders: tuple[str, ...]
    only_baked: bool
    """Every model is in the image, so nothing needs the network at run time."""
    handler: str


def make_plan(file: WorkerFile, folder: Path) -> Plan:
    """Plan the image of `folder`.

    Raises:
        BuildError: a named file is missing or outside the folder, or `env` contains a secret.
    """
    refuse_secrets(file)
    requirements_file, packages = _requirements(file, folder)
    models = [_inside(folder, model.id, "models[].id", "folder") for model in file.models if model.is_folder]
    model_folders = tuple(dict.fromkeys(Path(model).parts[0] for model in models))
    others = [path for path in sorted(folder.iterdir()) if path.name not in (*model_folders, *NEVER)]
    others = [path for path in others if not path.name.startswith(".")]
    hub = tuple(model for model in file.models if not model.is_folder)
    return Plan(
        base=file.base or f"{BASE}:{file.python or 'latest'}",
        python=file.python,
        system=file.system,
        requirements_file=requirements_file,
        packages=packages,
        hub_models=tuple(model for model in hub if model.bake),
        model_folders=model_folders,
        files=tuple(path.name for path in others if path.is_file()),
        folders=tuple(path.name for path in others if path.is_dir()),
        only_baked=bool(hub) and all(model.bake for model in hub),
        handler=_inside(folder, file.handler, "handler", "file"),
    )


def default_image_name(file: WorkerFile, folder: Path) -> str:
    """The image's name without `--tag`: the endpoint's name, or the folder's."""
    name = (file.endpoint or folder.resolve().name).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "worker"


def refuse_secrets(file: WorkerFile) -> None:
    """Raise BuildError if a variable in `env` looks like a secret."""
    for name in file.env:
        if is_secret(name):
            raise BuildError(
                f"env.{name}: looks like a secret, and every user of the image could read it; "
                f"remove it from worker.yaml and set it when you start the worker"
            )


def _requirements(file: WorkerFile, folder: Path) -> tuple[str | None, tuple[str, ...]]:
    requirements = file.requirements
    if isinstance(requirements, tuple):
        return None, requirements
    if requirements is None:
        return ("requirements.txt" if (folder / "requirements.txt").is_file() else None), ()
    return _inside(folder, requirements, "requirements", "file"), ()


def _inside(folder: Path, name: str, field: str, kind: str) -> str:
    """Return `name` relative to `folder`, which is all that a build can read."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BuildError(f"{field}: {name} is outside {folder}; a build can read only that folder")
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise BuildError(f"{field}: there is no {kind} {name} in {folder}")
    return str(path.relative_to(folder.resolve()))
