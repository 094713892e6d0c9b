"""`make image`: builds the base image, the hello template and Stable Diffusion, and lets each serve jobs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runpod_worker.build import Builder, find_builder, layer_table
from runpod_worker.build.plan import BASE
from runpod_worker.core.errors import RunpodWorkerError
from tools.image.checks import ROOT, ImageFailed, check
from tools.image.pip_config import pip_options, pip_settings
from tools.image.stand_in import public_or_stand_in

FOLDERS = {"hello": ROOT / "templates" / "hello", "stable-diffusion": ROOT / "examples" / "stable_diffusion"}


def main() -> int:
    """Build and check the images; return the exit status."""
    options = _options()
    builder = find_builder(options.builder)
    print(f"building with {builder.name}")
    with tempfile.TemporaryDirectory(prefix="image-") as work:
        volumes = pip_options(Path(work)) if builder.takes_volumes else []
        _base(builder, options, volumes)
        for name in options.only or FOLDERS:
            _build(builder, FOLDERS[name], FOLDERS[name] / "Dockerfile", name, volumes)
            _check(builder, name)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    parser.add_argument("--variant", choices=("cpu", "cuda"), default="cpu", help="the PyTorch of the images")
    parser.add_argument("--python", default="3.11", help="the images' Python")
    parser.add_argument("--builder", help="docker, podman or buildah; default: the first that works")
    parser.add_argument(
        "--only", action="append", choices=tuple(FOLDERS), help="build and check only this image; may be repeated"
    )
    return parser.parse_args()


def _base(builder: Builder, options: argparse.Namespace, volumes: list[str]) -> None:
    image = public_or_stand_in(builder, f"docker.io/library/python:{options.python}-slim-bookworm")
    arguments = {"FROM": image, "VARIANT": options.variant}
    if builder.takes_volumes and "find-links" in pip_settings():
        arguments["CPU_INDEX"] = ""  # use the wheels of this machine
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    words += ["-t", f"{BASE}:{options.python}"]
    _build(builder, ROOT, ROOT / "Dockerfile.base", f"{BASE}:latest", [*words, *volumes])


def _build(builder: Builder, folder: Path, file: Path, name: str, options: list[str]) -> None:
    print(f"\n=== {name}: building", flush=True)
    began = time.monotonic()
    builder.build(folder, file, name, options)
    print(f"\n{layer_table(builder.layers(name))}\n{name} built in {time.monotonic() - began:.0f} s", flush=True)


def _check(builder: Builder, name: str) -> None:
    print(f"\n=== {name}: running", flush=True)
    job = json.loads((FOLDERS[name] / "test_input.json").read_text(encoding="utf-8"))
    for line in check(builder, name, job["input"]):
        print(f"{name} {line}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RunpodWorkerError, ImageFailed, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
