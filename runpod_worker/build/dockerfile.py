"""Writes the Dockerfile: what changes least comes first, so that a new handler rebuilds one small layer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from runpod_worker.build.plan import Plan
from runpod_worker.workerfile import Model

MADE = "# Made from worker.yaml by `runpod-worker build`"
"""How a Dockerfile begins that may be written anew; any other is somebody's own."""

HUB = "/opt/models/hub"
"""Baked models lie here and not in the volume's cache, which a mounted volume would hide."""

IGNORED = """# What stays out of the image: secrets, and what is made anew.
.*
!.runpod
**/__pycache__
**/*.pem
**/*.key
Dockerfile
"""
"""What a new .dockerignore keeps out of the image."""


def dockerfile(plan: Plan) -> str:
    """The Dockerfile of `plan`."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{MADE}; commit it if you like. Without this line it is yours, and build leaves it alone."
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


def _python(wanted: str) -> Iterator[str]:
    other = f"'%d.%d' % sys.version_info[:2] != '{wanted}' and 'the base image has another Python than {wanted}'"
    yield f'RUN python3 -c "import sys; sys.exit({other})"'


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
    yield from ("", "# models from the hub; a token for private ones comes as a build secret and stays in no layer")
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
        yield from ("", "# models of this folder: large, and seldom changed")
        yield from (_copy(f"{one}/", f"{one}/") for one in plan.model_folders)
    yield from ("", "# the handler, and what lies beside it (see .dockerignore)")
    if not plan.model_folders:
        yield _copy(".", "./")
    elif plan.files:
        yield _copy(*plan.files, "./")
    yield from (_copy(f"{one}/", f"{one}/") for one in plan.folders)


def _copy(*names: str) -> str:
    return f"COPY --chown=${{WORKER_UID}} {json.dumps(list(names))}"


def _download(model: Model) -> str:
    words = [model.id]
    if model.revision:
        words += ["--revision", model.revision]
    for pattern in model.files:
        words += ["--include", pattern]
    return shlex.join(words)
