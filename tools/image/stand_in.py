"""Makes a stand-in for the public Python image with debootstrap, for machines that reach no image registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from runpod_worker.build import Builder
from runpod_worker.core.errors import BuildError

NAME = "localhost/stand-in-for-python"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
SUITE = "bookworm"


def public_or_stand_in(builder: Builder, public: str) -> str:
    """The image to build on: `public` if it is local or can be pulled, else a stand-in that is made here.

    Raises:
        BuildError: `public` cannot be pulled, and a stand-in cannot be made.
    """
    if builder.has(public) or subprocess.run([builder.name, "pull", "-q", public], check=False).returncode == 0:  # noqa: S603
        return public
    if builder.has(NAME):
        return NAME
    if builder.name != "buildah" or shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise BuildError(
            f"{public} cannot be pulled; a stand-in for it needs buildah, debootstrap and root: "
            "apt install buildah debootstrap"
        )
    print(f"{public} cannot be pulled: making a stand-in with debootstrap")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own arguments
        _clean(root)
        _import(root)
    return NAME


def _clean(root: Path) -> None:
    """Remove the downloads of debootstrap, and the settings that it copied from this machine."""
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    for file in ("etc/resolv.conf", "etc/hostname"):
        (root / file).write_text("")


def _import(root: Path) -> None:
    def buildah(*words: str) -> str:
        done = subprocess.run(["buildah", *words], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603, S607
        return done.stdout.strip()

    container = buildah("from", "scratch")
    try:
        buildah("add", "-q", container, str(root), "/")
        buildah("commit", "-q", "--format", "docker", container, NAME)
    finally:
        buildah("rm", container)
