"""What an image is made of: worker.yaml and the folder it lies in, checked before an engine is bothered."""

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
    """Everything the Dockerfile says, as plain values."""

    base: str
    python: str | None
    system: tuple[str, ...]
    requirements_file: str | None
    packages: tuple[str, ...]
    hub_models: tuple[Model, ...]
    model_folders: tuple[str, ...]
    """Top folders with models, which get a layer of their own; the two lists below are then all else of the folder."""
    files: tuple[str, ...]
    folders: tuple[str, ...]
    only_baked: bool
    """Every model is in the image, so nothing needs the network at run time."""
    handler: str


def plan(file: WorkerFile, folder: Path) -> Plan:
    """What the image of `folder` is made of.

    Raises:
        BuildError: a file it names is missing or lies outside the folder, or a secret stands in `env`.
    """
    refuse_secrets(file)
    requirements_file, packages = _requirements(file, folder)
    models = [_inside(folder, model.id, "models[].id", "folder") for model in file.models if model.is_folder]
    model_folders = tuple(dict.fromkeys(Path(one).parts[0] for one in models))
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


def image_name(file: WorkerFile, folder: Path) -> str:
    """The image's name when nobody gives another: the endpoint's, or the folder's."""
    name = (file.endpoint or folder.resolve().name).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "worker"


def refuse_secrets(file: WorkerFile) -> None:
    """Raise BuildError when a variable in `env` looks like a secret."""
    for name in file.env:
        if is_secret(name):
            raise BuildError(
                f"env.{name}: looks like a secret, and everybody who gets the image could read it there; "
                f"take it out of worker.yaml and give it when the worker is started"
            )


def _requirements(file: WorkerFile, folder: Path) -> tuple[str | None, tuple[str, ...]]:
    wanted = file.requirements
    if isinstance(wanted, tuple):
        return None, wanted
    if wanted is None:
        return ("requirements.txt" if (folder / "requirements.txt").is_file() else None), ()
    return _inside(folder, wanted, "requirements", "file"), ()


def _inside(folder: Path, name: str, field: str, kind: str) -> str:
    """`name` relative to `folder`, where the image's build can see it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BuildError(f"{field}: {name} lies outside of {folder}; a build sees only what is inside")
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise BuildError(f"{field}: there is no {kind} {name} in {folder}")
    return str(path.relative_to(folder.resolve()))
