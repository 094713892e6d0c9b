"""How `make test-pythons` finds interpreters and the lowest versions."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tools import pythons

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_this_interpreter_is_found() -> None:
    path = pythons.find(HERE)

    assert path is not None
    assert pythons.runs(path, HERE)


def test_a_shim_that_fails_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho Python 3.99.0\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert shim in pythons.candidates("3.99")
    assert pythons.find("3.99") is None


@pytest.mark.parametrize(("in_ci", "status"), [("false", 0), ("true", 1)])
def test_a_missing_interpreter_is_an_error_in_ci_only(
    in_ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", in_ci)
    monkeypatch.setattr(pythons, "REQUIRED", ("3.99",))

    assert pythons.main("find", "3.99") == status
    assert "Python 3.99: none found" in capsys.readouterr().err


def test_the_lowest_version_of_every_dependency_is_pinned() -> None:
    pins = pythons.lowest()

    assert "aiohttp==3.12" in pins
    assert "uvloop==0.21; sys_platform == 'linux'" in pins
    assert all(re.search(r"==|<", pin) for pin in pins)
