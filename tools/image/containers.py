"""Runs containers: with docker or podman, or with chroot and name spaces where only buildah exists."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runpod_worker.build import Builder


class Container(Protocol):
    """A running container. It has its own process 1 and this machine's network."""

    def run(self, *command: str) -> str:
        """Run a command inside as the image's user, and return what it printed.

        Raises:
            CalledProcessError: the command failed.
        """

    def terminate(self) -> None:
        """Send SIGTERM to process 1."""

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of process 1, and return its exit status."""

    def remove(self) -> None:
        """Remove the container."""


def start(builder: Builder, image: str, env: Mapping[str, str]) -> Container:
    """Start the image's command with these variables added to its own."""
    return ChrootContainer(image, env) if builder.name == "buildah" else BuilderContainer(builder.name, image, env)


class BuilderContainer:
    """A container of docker or podman."""

    def __init__(self, builder: str, image: str, env: Mapping[str, str]) -> None:
        variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        self._builder = builder
        self._id = self._call("run", "--detach", "--no-healthcheck", "--network", "host", *variables, image)

    def _call(self, *words: str) -> str:
        return _output([self._builder, *words])

    def run(self, *command: str) -> str:
        return self._call("exec", self._id, *command)

    def terminate(self) -> None:
        self._call("kill", "--signal", "TERM", self._id)

    def wait(self, timeout_s: float) -> int:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [self._builder, "wait", self._id], check=True, stdout=subprocess.PIPE, text=True, timeout=timeout_s
        )
        return int(done.stdout)

    def remove(self) -> None:
        self._call("rm", "--force", self._id)


SETUP = """
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/tmp"
chmod 1777 "$0/tmp"
root=$0; user=$1; shift
exec chroot --userspec="$user:$user" --groups= "$root" "$@"
"""
"""Runs in new name spaces. Each `exec` keeps the process, so the image's command becomes process 1."""


class ChrootContainer:
    """The image's files, mounted by buildah, in new process and mount name spaces. Needs root."""

    def __init__(self, image: str, env: Mapping[str, str]) -> None:
        config = json.loads(_output(["buildah", "inspect", "--type", "image", image]))["OCIv1"]["config"]
        self._container = _output(["buildah", "from", image])
        root = _output(["buildah", "mount", self._container])
        self._user = config.get("User") or "0"
        variables = [*config.get("Env", []), f"HOME={_home(Path(root), self._user)}"]
        variables += [f"{name}={value}" for name, value in env.items()]
        self._env = ["env", "-i", f"--chdir={config.get('WorkingDir') or '/'}", *variables]
        command = [*config.get("Entrypoint", []), *config.get("Cmd", [])]
        spaces = ["unshare", "--fork", "--pid", "--mount", "--kill-child", "sh", "-ec", SETUP, root, self._user]
        self._unshare = subprocess.Popen([*spaces, *self._env, *command])  # noqa: S603 - the image's own command
        self._root = root

    def run(self, *command: str) -> str:
        inside = ["nsenter", "--target", self._pid_of_first(), "--pid", "--mount"]
        who = ["chroot", f"--userspec={self._user}:{self._user}", "--groups=", self._root]
        return _output([*inside, *who, *self._env, *command])

    def terminate(self) -> None:
        _output(["kill", "-TERM", self._pid_of_first()])

    def wait(self, timeout_s: float) -> int:
        return self._unshare.wait(timeout_s)

    def remove(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        with suppress(subprocess.CalledProcessError):  # it may be unmounted already
            _output(["buildah", "umount", self._container])
        _output(["buildah", "rm", self._container])

    def _pid_of_first(self) -> str:
        """The id on this machine of the container's process 1."""
        pid = self._unshare.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0]


def _home(root: Path, user: str) -> str:
    lines = (root / "etc/passwd").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[5] for line in lines if user in line.split(":")[2:3]), "/")


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
