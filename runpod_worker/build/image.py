"""Writes a folder's Dockerfile and has it built."""

from __future__ import annotations

import re
from pathlib import Path

from runpod_worker.build.builders import Engine
from runpod_worker.build.dockerfile import IGNORED, MADE, dockerfile
from runpod_worker.build.plan import BASE, Plan
from runpod_worker.core.errors import BuildError


def has_own(folder: Path) -> bool:
    """Whether there is a Dockerfile that somebody wrote by hand."""
    path = folder / "Dockerfile"
    return path.is_file() and not path.read_text(encoding="utf-8").startswith(MADE)


def write(plan: Plan, folder: Path) -> None:
    """Write the Dockerfile, and a .dockerignore where there is none."""
    (folder / "Dockerfile").write_text(dockerfile(plan), encoding="utf-8")
    ignore = folder / ".dockerignore"
    if not ignore.exists():
        ignore.write_text(IGNORED, encoding="utf-8")


def need_base(engine: Engine, folder: Path, base: str | None) -> None:
    """Raise BuildError when the Dockerfile builds on our base image and that was never built here.

    Our base is in no registry, so the engine itself could only say that it is not found there.
    """
    image = base or _base_of((folder / "Dockerfile").read_text(encoding="utf-8"))
    if not re.fullmatch(rf"{BASE}(:[\w.-]+)?", image) or engine.has(image):
        return
    _, _, tag = image.partition(":")
    python = f" --build-arg PYTHON={tag}" if re.fullmatch(r"3\.\d+", tag) else ""
    raise BuildError(
        f"the base image {image} is not here yet; in a checkout of runpod_worker: "
        f"{' '.join(engine.build_command)} -f Dockerfile.base -t {image}{python} ."
    )


def _base_of(text: str) -> str:
    found = re.search(r"^ARG BASE=(\S+)", text, re.MULTILINE)
    return found.group(1) if found else ""
