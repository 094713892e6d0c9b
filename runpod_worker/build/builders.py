"""What builds images here: docker, podman or buildah, the first that is installed and answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runpod_worker.build.layers import Layer, from_history, from_storage
from runpod_worker.core.errors import BuildError

INSTALL = (
    "nothing here builds images: install Docker (docs.docker.com/get-docker), or on Debian and Ubuntu "
    "`apt install podman` or `apt install buildah`"
)


@dataclass(frozen=True, slots=True)
class Engine:
    """One program that builds images."""

    name: str
    build_command: tuple[str, ...]
    alive_command: tuple[str, ...]
    takes_volumes: bool
    """Whether folders of this machine can be lent to a build."""

    def build(self, folder: Path, file: Path, tag: str, options: Sequence[str] = ()) -> None:
        """Build `folder` by `file` into the image `tag`; the engine's own progress goes to the terminal.

        Raises:
            BuildError: the engine failed; what it said stands above.
        """
        command = [*self.build_command, "-f", str(file), "-t", tag, *options, str(folder)]
        status = subprocess.run(command, check=False).returncode  # noqa: S603 - no shell, the user's own words
        if status:
            raise BuildError(f"{self.name} could not build {tag} (exit status {status}); its reason stands above")

    def has(self, image: str) -> bool:
        """Whether `image` is in this engine's local storage."""
        words = ["inspect", "--type", "image"] if self.name == "buildah" else ["image", "inspect"]
        return _run([self.name, *words, image]).returncode == 0

    def layers(self, image: str) -> list[Layer]:
        """The layers of `image`, the lowest first, with their sizes on disk."""
        if self.name == "buildah":
            return from_storage(self._said("inspect", "--type", "image", image), self._said("info"))
        form = "{{.Size}}\t{{.CreatedBy}}"
        return from_history(self._said("history", "--no-trunc", "--human=false", "--format", form, image))

    def _said(self, *words: str) -> str:
        done = _run([self.name, *words])
        if done.returncode:
            raise BuildError(f"{self.name} {words[0]}: {done.stderr.strip()}")
        return done.stdout


CHROOT = ("--isolation", "chroot")

# The image format of Docker knows HEALTHCHECK, the other one does not.
ENGINES = (
    Engine("docker", ("docker", "build"), ("docker", "info"), takes_volumes=False),
    Engine("podman", ("podman", "build", "--format", "docker"), ("podman", "info"), takes_volumes=True),
    Engine("buildah", ("buildah", "build", "--layers", "--format", "docker"), ("buildah", "info"), takes_volumes=True),
)


def find(name: str | None = None, *, which: Callable[[str], str | None] = shutil.which) -> Engine:
    """The engine called `name`, or the first that is installed and answers.

    Raises:
        BuildError: there is none; the message says what to install, or what the installed one said.
    """
    wanted = [engine for engine in ENGINES if name in (None, engine.name)]
    if not wanted:
        raise BuildError(f"{name} is not an engine we know: {', '.join(engine.name for engine in ENGINES)}")
    silent: dict[str, str] = {}
    for engine in wanted:
        if which(engine.name) is None:
            continue
        done = _run(engine.alive_command)
        if done.returncode == 0:
            return (
                engine
                if _can_contain(engine, which)
                else replace(engine, build_command=(*engine.build_command, *CHROOT))
            )
        silent[engine.name] = done.stderr.strip() or done.stdout.strip()
    raise BuildError(_why_none(name, silent))


def _can_contain(engine: Engine, which: Callable[[str], str | None]) -> bool:
    """Whether builds run in containers of their own. buildah alone has no program for that, only a change of root."""
    return engine.name != "buildah" or any(which(name) for name in ("crun", "runc"))


def hub_options(env: Mapping[str, str]) -> list[str]:
    """How a build reaches the hub as this machine does: by its mirror, with its token, which no layer keeps."""
    options = ["--secret", "id=HF_TOKEN,env=HF_TOKEN"] if env.get("HF_TOKEN") else []
    return [*options, "--build-arg", f"HF_ENDPOINT={env['HF_ENDPOINT']}"] if env.get("HF_ENDPOINT") else options


def _why_none(name: str | None, silent: Mapping[str, str]) -> str:
    if silent:
        return "; ".join(
            f"{one} is installed but does not answer: {said.splitlines()[-1]}" for one, said in silent.items()
        )
    return f"{name} is not installed" if name else INSTALL


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own words, no shell
