"""The Dockerfile and .dockerignore of a folder, and the base image they need."""

from __future__ import annotations

import re
from pathlib import Path

from runpod_worker.build.builders import Builder
from runpod_worker.build.dockerfile import IGNORED, MADE, render_dockerfile
from runpod_worker.build.plan import BASE, Plan
from runpod_worker.core.errors import BuildError


def has_own_dockerfile(folder: Path) -> bool:
    """Whether the folder has a Dockerfile written by hand."""
    path = folder / "Dockerfile"
    return path.is_file() and not path.read_text(encoding="utf-8").startswith(MADE)


def write_dockerfile(plan: Plan, folder: Path) -> None:
    """Write the Dockerfile, and a .dockerignore unless the folder has one."""
    (folder / "Dockerfile").write_text(render_dockerfile(plan), encoding="utf-8")
    ignore = folder / ".dockerignore"
    if not ignore.exists():
        ignore.write_text(IGNORED, encoding="utf-8")


def require_base(builder: Builder, folder: Path, base: str | None) -> None:
    """Raise BuildError if the Dockerfile needs our base image and this machine has never built it.

    No registry has our base image, so the builder's own error would not help.
    """
    image = base or _base_of((folder / "Dockerfile").read_text(encoding="utf-8"))
    if not re.fullmatch(rf"{BASE}(:[\w.-]+)?", image) or builder.has(image):
        return
    _, _, tag = image.partition(":")
    python = f" --build-arg PYTHON={tag}" if re.fullmatch(r"3\.\d+", tag) else ""
    raise BuildError(
        f"this machine has no base image {image} yet; build it in a checkout of runpod_worker: "
        f"{' '.join(builder.build_command)} -f Dockerfile.base -t {image}{python} ."
    )


def _base_of(text: str) -> str:
    match = re.search(r"^ARG BASE=(\S+)", text, re.MULTILINE)
    return match.group(1) if match else ""
