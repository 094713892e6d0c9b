"""The programs that build images: docker, podman or buildah, the first that is installed and works."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runpod_worker.build.layers import Layer, from_history, from_storage
from runpod_worker.core.errors import BuildError

INSTALL = (
    "no program to build images: install Docker (docs.docker.com/get-docker), or on Debian and Ubuntu "
    "`apt install podman` or `apt install buildah`"
)


@dataclass(frozen=True, slots=True)
class Builder:
    """A program that builds images."""

    name: str
    build_command: tuple[str, ...]
    probe_command: tuple[str, ...]
    takes_volumes: bool
    """Whether a build can mount folders of this machine."""

    def build(self, folder: Path, file: Path, tag: str, options: Sequence[str] = ()) -> None:
        """Build `folder` by `file` into the image `tag`; the builder prints its progress to the terminal.

        Raises:
            BuildError: the build failed; the builder printed the reason.
        """
        command = [*self.build_command, "-f", str(file), "-t", tag, *options, str(folder)]
        status = subprocess.run(command, check=False).returncode  # noqa: S603 - no shell, the user's own options
        if status:
            raise BuildError(f"{self.name} could not build {tag} (exit status {status}); see its messages above")

    def has(self, image: str) -> bool:
        """Whether `image` is in this builder's local storage."""
        words = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        return _run([self.name, *words, image]).returncode == 0

    def layers(self, image: str) -> list[Layer]:
        """Return the layers of `image`, lowest first, with their sizes on disk."""
        if self.name == "buildah":
            return from_storage(self._output("inspect", "--type", "image", image), self._output("info"))
        form = "{{.Size}}\t{{.CreatedBy}}"
        return from_history(self._output("history", "--no-trunc", "--human=false", "--format", form, image))

    def _output(self, *words: str) -> str:
        done = _run([self.name, *words])
        if done.returncode:
            raise BuildError(f"{self.name} {words[0]}: {done.stderr.strip()}")
        return done.stdout


CHROOT = ("--isolation", "chroot")

# Only Docker's image format knows HEALTHCHECK.
BUILDERS = (
    Builder("docker", ("docker", "build"), ("docker", "info"), takes_volumes=False),
    Builder("podman", ("podman", "build", "--format", "docker"), ("podman", "info"), takes_volumes=True),
    Builder("buildah", ("buildah", "build", "--layers", "--format", "docker"), ("buildah", "info"), takes_volumes=True),
)


def find_builder(name: str | None = None, *, which: Callable[[str], str | None] = shutil.which) -> Builder:
    """Return the builder called `name`, or the first that is installed and works.

    Raises:
        BuildError: none works; the message says what to install, or quotes the installed builder.
    """
    candidates = [builder for builder in BUILDERS if name in (None, builder.name)]
    if not candidates:
        raise BuildError(f"unknown builder {name}; expected one of {', '.join(builder.name for builder in BUILDERS)}")
    errors: dict[str, str] = {}
    for builder in candidates:
        if which(builder.name) is None:
            continue
        done = _run(builder.probe_command)
        if done.returncode == 0:
            if _has_container_runtime(builder, which):
                return builder
            return replace(builder, build_command=(*builder.build_command, *CHROOT))
        errors[builder.name] = done.stderr.strip() or done.stdout.strip()
    raise BuildError(_why_none(name, errors))


def _has_container_runtime(builder: Builder, which: Callable[[str], str | None]) -> bool:
    """Whether build steps run in containers. buildah needs another program for that; alone it can only change root."""
    return builder.name != "buildah" or any(which(name) for name in ("crun", "runc"))


def hub_options(env: Mapping[str, str]) -> list[str]:
    """Build options to reach the hub as this machine does: by its mirror, with its token, which no layer keeps."""
    options = ["--secret", "id=HF_TOKEN,env=HF_TOKEN"] if env.get("HF_TOKEN") else []
    return [*options, "--build-arg", f"HF_ENDPOINT={env['HF_ENDPOINT']}"] if env.get("HF_ENDPOINT") else options


def _why_none(name: str | None, errors: Mapping[str, str]) -> str:
    if errors:
        return "; ".join(
            f"{builder} is installed but does not work: {error.splitlines()[-1]}" for builder, error in errors.items()
        )
    return f"{name} is not installed" if name else INSTALL


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own arguments, no shell
