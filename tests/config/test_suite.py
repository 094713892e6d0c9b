"""`runpod-worker test` in a folder with tests: real service, real worker."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.cli.suite import judge, same
from runpod_worker.workerfile import Case

HANDLER = """
import os, time
from runpod_worker import Worker

worker = Worker()

@worker.handler
def handler(job):
    wanted = job["input"]
    time.sleep(wanted.get("sleep", 0))
    if "raise" in wanted:
        raise ValueError(wanted["raise"])
    if "die" in wanted:
        os._exit(3)
    return {"echo": wanted, "colour": os.environ.get("COLOUR")}

worker.start()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER)
    return tmp_path


def write_tests(folder: Path, *tests: Any, env: list[Any] | None = None) -> None:
    (folder / ".runpod").mkdir()
    content = {"tests": tests, "config": {"env": env or []}}
    (folder / ".runpod" / "tests.json").write_text(json.dumps(content))


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runpod_worker", "test", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_each_test_is_judged_and_the_exit_status_tells(folder: Path) -> None:
    write_tests(
        folder,
        {"name": "right", "input": {"x": 1}, "output": {"echo": {"x": 1}, "colour": "red"}, "timeout": 10000},
        {"name": "wrong", "input": {"x": 1}, "output": {"echo": {"x": True}, "colour": "red"}},
        {"name": "slow", "input": {"sleep": 60}, "timeout": 200},
        {"name": "raises", "input": {"raise": "no way"}},
        {"name": "dies", "input": {"die": 1}},
        {"input": {}},
        env=[{"key": "COLOUR", "value": "red"}],
    )

    done = run(folder)

    lines = [line.split(None, 1)[0] for line in done.stdout.splitlines()[:-1]]
    assert lines == ["ok", "FAIL", "FAIL", "FAIL", "FAIL", "ok"], done.stdout + done.stderr
    assert 'expected {"echo": {"x": true}' in done.stdout
    assert "timed out after 0.2 s" in done.stdout
    assert "ValueError'>: no way" in done.stdout
    assert "exited with code 3" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 of 6 passed"
    assert done.returncode == 1


def test_tests_of_worker_yaml_run_with_its_variables(folder: Path) -> None:
    (folder / "handler.py").rename(folder / "main.py")
    (folder / "worker.yaml").write_text(
        "handler: main.py\nenv: {COLOUR: blue}\ntests: [{name: blue, input: {}, output: {echo: {}, colour: blue}}]"
    )

    done = run(folder)

    assert done.stdout.splitlines()[-1] == "1 of 1 passed", done.stdout + done.stderr
    assert done.returncode == 0


def test_a_worker_that_cannot_start_fails_every_test_at_once(folder: Path) -> None:
    (folder / "handler.py").write_text("raise SystemExit(5)")
    write_tests(folder, {"name": "a", "input": {}}, {"name": "b", "input": {}})

    done = run(folder)

    assert done.stdout.count("the worker ended with status 1") == 2, done.stdout + done.stderr
    assert done.returncode == 1


def test_an_input_on_the_command_line_runs_once_instead(folder: Path) -> None:
    write_tests(folder, {"input": {"raise": "this is not run"}})

    done = run(folder, "--input", '{"input": {"x": 7}}')

    assert done.returncode == 0, done.stderr
    assert "passed" not in done.stdout


def test_a_folder_without_a_handler_is_told_so(tmp_path: Path) -> None:
    done = run(tmp_path)

    assert done.returncode == 2
    assert "no handler handler.py" in done.stderr


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "TIMED_OUT", "IN_QUEUE", "IN_PROGRESS"])
def test_only_completed_passes(status: str) -> None:
    assert judge(Case(input=1), {"status": status}) == status


def test_any_output_will_do_when_none_is_expected() -> None:
    assert judge(Case(input=1), {"status": "COMPLETED"}) == ""


def test_null_can_be_expected() -> None:
    assert judge(Case(input=1, output=None), {"status": "COMPLETED", "output": None}) == ""
    assert judge(Case(input=1, output=None), {"status": "COMPLETED", "output": 0}) == "expected null, got 0"


@pytest.mark.parametrize(
    ("value", "other", "equal"),
    [(1, 1.0, True), (True, 1, False), ([1, {"a": 0}], [1, {"a": False}], False), ({"a": 1}, {"a": 1, "b": 2}, False)],
)
def test_values_are_compared_as_json(value: Any, other: Any, equal: bool) -> None:
    assert same(value, other) is equal
