"""Renders the Dockerfile, rarely changed parts first, so that a new handler rebuilds one small layer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from runpod_worker.build.plan import Plan
from runpod_worker.workerfile import Model

MADE = "# Made from worker.yaml by `runpod-worker build`"
"""The first words of a Dockerfile that `build` may overwrite. Any other Dockerfile belongs to the user."""

HUB = "/opt/models/hub"
"""The folder of baked models. It is outside the volume's cache, which a mounted volume would hide."""

IGNORED = """# Kept out of the image: secrets and generated files.
.*
!.runpod
**/__pycache__
**/*.pem
**/*.key
Dockerfile
"""
"""The text of a new .dockerignore."""


def render_dockerfile(plan: Plan) -> str:
    """Return the text of the plan's Dockerfile."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{MADE}; commit it if you like. Without this line it is yours, and build does not change it."
    yield f"ARG BASE={plan.base}"
    yield "FROM ${BASE}"
    if plan.python:
        yield from _python(plan.python)
    if plan.system:
        yield from _system(plan.system)
    if plan.requirements_file or plan.packages:
        yield from _packages(plan)
    if plan.hub_models:
        yield from _models(plan)
    yield from _files(plan)
    yield f"CMD {json.dumps(['runpod-worker', 'run', plan.handler])}"


def _python(version: str) -> Iterator[str]:
    check = f"'%d.%d' % sys.version_info[:2] != '{version}' and 'the base image has another Python than {version}'"
    yield f'RUN python3 -c "import sys; sys.exit({check})"'


def _system(packages: tuple[str, ...]) -> Iterator[str]:
    yield from ("", "# system packages", "USER root", "RUN apt-get update -qq \\")
    yield f" && apt-get install -y -qq --no-install-recommends {' '.join(packages)} \\"
    yield from (" && rm -rf /var/lib/apt/lists/* /var/cache/apt/*", "USER ${WORKER_UID}")


def _packages(plan: Plan) -> Iterator[str]:
    yield from ("", "# Python packages")
    if plan.requirements_file:
        yield _copy(plan.requirements_file, "/tmp/requirements.txt")  # noqa: S108 - inside the image
        yield "RUN pip install --no-cache-dir -r /tmp/requirements.txt"
    else:
        yield f"RUN pip install --no-cache-dir {shlex.join(plan.packages)}"


def _models(plan: Plan) -> Iterator[str]:
    yield from ("", "# models from the hub; a token for private models is a build secret, kept in no layer")
    yield from ("USER root", f"RUN install -d -o ${{WORKER_UID}} {HUB}", "USER ${WORKER_UID}")
    yield f"ENV HF_HUB_CACHE={HUB} HUGGINGFACE_HUB_CACHE={HUB}"
    yield "ARG HF_ENDPOINT=https://huggingface.co"
    yield "RUN pip install --no-cache-dir -q huggingface_hub"
    for model in plan.hub_models:
        yield "RUN --mount=type=secret,id=HF_TOKEN,mode=0444 \\"
        yield f'    HF_TOKEN="$(cat /run/secrets/HF_TOKEN 2>/dev/null || true)" hf download {_download(model)}'
    if plan.only_baked:
        yield "ENV HF_HUB_OFFLINE=1"


def _files(plan: Plan) -> Iterator[str]:
    if plan.model_folders:
        yield from ("", "# models of this folder: large and rarely changed")
        yield from (_copy(f"{folder}/", f"{folder}/") for folder in plan.model_folders)
    yield from ("", "# the handler and the files beside it (see .dockerignore)")
    if not plan.model_folders:
        yield _copy(".", "./")
    elif plan.files:
        yield _copy(*plan.files, "./")
    yield from (_copy(f"{folder}/", f"{folder}/") for folder in plan.folders)


def _copy(*names: str) -> str:
    return f"COPY --chown=${{WORKER_UID}} {json.dumps(list(names))}"


def _download(model: Model) -> str:
    words = [model.id]
    if model.revision:
        words += ["--revision", model.revision]
    for pattern in model.files:
        words += ["--include", pattern]
    return shlex.join(words)
