"""`python -m tools.compat_environments [--all]`: install RunPod's SDKs for tests/compat, each in an own environment.

Installs the newest Python SDK with the openai client, and the JavaScript SDK if npm exists; with --all also older
Python SDKs. Installed packages are left unchanged. `make test` and `make compat` run it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("1.2.6", "1.5.3", "1.6.2", "1.7.0", "1.7.13", "1.9.1", "1.12.0")
"""The versions of the SDK that are tested, the reference last."""

REFERENCE_VERSION = VERSIONS[-1]
REFERENCE = ROOT / ".venv-reference"
COMPAT = ROOT / ".venv-compat"
NODE = ROOT / ".node-compat"
JAVASCRIPT_SDK = "runpod-sdk@1.1.2"


def python_of(version: str) -> Path:
    """The interpreter of the environment with this version of the SDK."""
    return (REFERENCE if version == REFERENCE_VERSION else COMPAT / version) / "bin/python"


def stamp_of(version: str) -> Path:
    """A file that exists once the environment is complete."""
    prefix = ".has-openai" if version == REFERENCE_VERSION else ".has"
    return python_of(version).parents[1] / f"{prefix}-runpod{version}"


def install(version: str) -> None:
    """Make the environment of this version, unless it is complete."""
    python, stamp = python_of(version), stamp_of(version)
    packages = [f"runpod=={version}", *(["openai"] if version == REFERENCE_VERSION else [])]
    if stamp.exists() and python.exists():
        return
    print(f"installing {' '.join(packages)} into {python.parents[1].relative_to(ROOT)}", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)  # noqa: S603 - our own words
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    subprocess.run(command, check=True)  # noqa: S603 - our own words
    stamp.touch()


def has_node() -> bool:
    """Whether the JavaScript SDK is installed."""
    return (NODE / "node_modules/runpod-sdk/package.json").exists()


def install_node() -> None:
    """Install the JavaScript SDK, unless it is installed or npm is missing."""
    npm = shutil.which("npm")
    if npm is None or has_node():
        return
    NODE.mkdir(exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(NODE), JAVASCRIPT_SDK]
    subprocess.run(command, check=True, timeout=300, env=dict(os.environ))  # noqa: S603 - npm's own settings


def main() -> None:
    """Install the missing environments."""
    parser = argparse.ArgumentParser(prog="python -m tools.compat_environments", description=__doc__)
    parser.add_argument("--all", action="store_true", help="older versions of the Python SDK too")
    options = parser.parse_args()
    for version in VERSIONS if options.all else VERSIONS[-1:]:
        install(version)
    install_node()


if __name__ == "__main__":
    main()
