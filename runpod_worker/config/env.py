"""The process's environment: nothing else in the package reads or changes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runpod_worker.core.errors import SettingsError


def environment() -> Mapping[str, str]:
    """Return the process's environment."""
    return os.environ


def put_on_python_path(folder: Path) -> None:
    """Make every Python process started from here look for modules in this folder first."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])


def fill_environment(values: Mapping[str, str]) -> None:
    """Set the variables that the environment does not set yet: worker.yaml's `env`, for us and for the handler."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def channel_fd(env: Mapping[str, str] | None = None) -> int | None:
    """Return the file descriptor of the agent's channel, or None when no agent started this process."""
    value = (environment() if env is None else env).get("RUNPOD_WORKER_CHANNEL_FD")
    if not value:
        return None
    if not value.isdigit():
        raise SettingsError(f"RUNPOD_WORKER_CHANNEL_FD: expected a file descriptor, got {value!r}")
    return int(value)
