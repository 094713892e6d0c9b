"""Engines for the tests: real programs, small ones, that say what a real engine says."""

from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a program made of shell lines on an otherwise empty path; each call is noted in calls.txt beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, lines: str) -> Path:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls.txt\n{lines}\n')
        program.chmod(0o755)
        return folder / "calls.txt"

    return put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A handler's folder with nothing but a handler."""
    made = tmp_path / "My Worker"
    made.mkdir()
    (made / "handler.py").write_text("")
    return made
