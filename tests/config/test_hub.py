"""The Hub's hub.json and tests.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile import Case, hub


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / ".runpod" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_timeout_in_milliseconds_becomes_seconds(tmp_path: Path) -> None:
    write(tmp_path, "tests.json", {"tests": [{"name": "a", "input": {"x": 1}, "timeout": 10000}]})

    assert hub.cases(tmp_path) == (Case(name="a", input={"x": 1}, timeout=10.0),)


def test_without_a_timeout_the_hubs_thirty_seconds_hold(tmp_path: Path) -> None:
    write(tmp_path, "tests.json", {"tests": [{"input": {}}]})

    assert hub.cases(tmp_path) == (Case(input={}, timeout=30.0),)


@pytest.mark.parametrize("key", ["output", "expected_output"])
def test_an_expected_output_of_null_is_one(tmp_path: Path, key: str) -> None:
    write(tmp_path, "tests.json", {"tests": [{"input": 1, key: None}, {"input": 1}]})

    first, second = hub.cases(tmp_path) or ()

    assert first.output is None
    assert second == Case(input=1)


def test_a_folder_without_the_file_has_no_tests(tmp_path: Path) -> None:
    assert hub.cases(tmp_path) is None


def test_the_dot_folder_goes_before_the_root(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text('{"tests": [{"input": "root"}]}')
    write(tmp_path, "tests.json", {"tests": [{"input": "dot"}]})

    assert hub.cases(tmp_path) == (Case(input="dot"),)


def test_the_environment_is_hub_defaults_under_the_tests_own(tmp_path: Path) -> None:
    inputs = [
        {"key": "A", "value": "hub"},
        {"key": "B", "input": {"type": "number", "default": 8, "min": 1}},
        {"key": "C", "input": {"type": "boolean", "default": True}},
        {"key": "D", "input": {"type": "string"}},
    ]
    write(tmp_path, "hub.json", {"title": "t", "type": "serverless", "config": {"runsOn": "GPU", "env": inputs}})
    write(tmp_path, "tests.json", {"tests": [], "config": {"gpuCount": 1, "env": [{"key": "A", "value": "test"}]}})

    assert hub.variables(tmp_path) == {"A": "test", "B": "8", "C": "true"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"tests": [}', ":1:12: not JSON"),
        ({"tests": [{"name": "x"}]}, ": tests[0]: Object missing required field `input`"),
        ({"tests": [{"input": 1, "timeout": "soon"}]}, ": tests[0].timeout: Expected `float`, got `str`"),
        ([], ": the file: Expected `object`, got `array`"),
    ],
)
def test_an_error_names_file_and_field(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, "tests.json", content)

    with pytest.raises(SettingsError) as caught:
        hub.cases(tmp_path)

    assert str(caught.value).startswith(f"{path}{message}")
