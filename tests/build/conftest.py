"""Builders for the tests: small real programs that print the output of a real builder."""

from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a program of these shell lines on an otherwise empty path; calls.txt beside it lists each call."""
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
    """A folder that contains only a handler."""
    made = tmp_path / "My Worker"
    made.mkdir()
    (made / "handler.py").write_text("")
    return made
