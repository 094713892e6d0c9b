"""Interpreters and versions for `make test-pythons`.

    python -m tools.pythons find 3.12    print the path of a Python 3.12; nothing, and why, when there is none
    python -m tools.pythons lowest       print the lowest versions that pyproject.toml admits, as pip's constraints

With CI=true in the environment an interpreter of REQUIRED that is missing is an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

REQUIRED = ("3.11", "3.12", "3.13")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
TIMEOUT_S = 20.0

EXTRA_PINS = ["click<8.3"]
"""Newer ones deprecate what the lowest typer calls, and the tests take a warning for an error."""


def find(version: str) -> Path | None:
    """The first interpreter that runs and says it is this version. A name on PATH proves nothing: shims may fail."""
    return next((path for path in candidates(version) if runs(path, version)), None)


def candidates(version: str) -> Iterator[Path]:
    """Where a Python of this version may be."""
    yield Path(sys.executable)
    yield from (Path(folder, f"python{version}") for folder in os.environ.get("PATH", "").split(os.pathsep))
    home = Path.home()
    for folder, pattern in (
        (home / ".pyenv/versions", f"{version}.*/bin/python"),
        (home / ".local/share/uv/python", f"cpython-{version}.*/bin/python"),
        (Path("/opt/python"), f"*{version}*/bin/python"),
    ):
        yield from sorted(folder.glob(pattern))


def runs(python: Path, version: str) -> bool:
    """Whether this file is an interpreter of this version that starts."""
    if not python.is_file():
        return False
    try:
        reply = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return reply.returncode == 0 and reply.stdout.startswith(f"Python {version}.")


def lowest(project: Path = PROJECT) -> list[str]:
    """Each dependency `name>=version` as `name==version`."""
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    pins = [re.sub(r"^([\w.-]+)>=([\w.]+).*?(;.*)?$", r"\1==\2\3", dependency) for dependency in dependencies]
    return [*pins, *EXTRA_PINS]


def main(command: str, version: str = "") -> int:
    """Run the command; the exit status."""
    if command == "lowest":
        print("\n".join(lowest()))
        return 0
    path = find(version)
    if path is not None:
        print(path)
        return 0
    insist = os.environ.get("CI") == "true" and version in REQUIRED
    print(f"Python {version}: none found{'' if insist else ', skipped'}", file=sys.stderr)
    return int(insist)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
