"""`runpod-worker config show`: every setting, its value, and where that came from."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runpod_worker.cli.config import app
from runpod_worker.cli.worker import settings_for
from runpod_worker.workerfile.schema import as_text

WORKER_YAML = """
endpoint: hello
concurrency: 3
device: cpu
timeouts: {grace: 5}
env: {RUNPOD_WORKER_STOP_GRACE: 2, HF_TOKEN: hf_hunter2, COLOUR: red}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "worker.yaml").write_text(WORKER_YAML)
    (tmp_path / "handler.py").write_text("")
    return tmp_path


def shown(folder: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["show", str(folder), "--json", *options])
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.output)
    return printed


def test_command_line_wins_over_environment_over_file_over_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_WORKER_DEVICE", "cuda:1")

    worker = shown(folder, "--concurrency", "8")["worker"]

    assert worker["concurrency"] == {"value": 8, "from": "command line"}
    assert worker["device"] == {"value": "cuda:1", "from": "environment RUNPOD_WORKER_DEVICE"}
    assert worker["grace_s"] == {"value": 5.0, "from": "worker.yaml timeouts.grace"}
    assert worker["prefetch_jobs"] == {"value": 32, "from": "default"}


def test_a_variable_of_the_file_is_told_from_one_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(folder)["worker"]["stop_grace_s"] == {
        "value": 2.0,
        "from": "worker.yaml env.RUNPOD_WORKER_STOP_GRACE",
    }

    monkeypatch.setenv("RUNPOD_WORKER_STOP_GRACE", "9")

    assert shown(folder)["worker"]["stop_grace_s"]["from"] == "environment RUNPOD_WORKER_STOP_GRACE"


def test_the_urls_that_come_from_one_url_say_so(folder: Path) -> None:
    worker = shown(folder, "--url", "http://localhost:8000/v2/hello", "--worker-id", "w1")["worker"]

    assert worker["done_url"] == {
        "value": "http://localhost:8000/v2/hello/job-done/w1/$ID?gpu=cpu",
        "from": "url",
    }


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_secret_is_ever_printed(folder: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_hunter2")

    output = CliRunner().invoke(app, ["show", str(folder), "--key", "key_hunter2", *form]).output

    assert "hunter2" not in output
    assert output.count("(set, hidden)") == 3


def test_the_table_has_every_value_beside_its_origin(folder: Path) -> None:
    output = CliRunner().invoke(app, ["show", str(folder)]).output

    lines = [line.split() for line in output.splitlines()]
    assert ["concurrency", "3", "worker.yaml", "concurrency"] in lines
    assert ["endpoint", "hello", "worker.yaml", "endpoint"] in lines


def test_a_wrong_file_is_one_line_and_exit_status_2(folder: Path) -> None:
    (folder / "worker.yaml").write_text("concurency: 3")

    result = CliRunner().invoke(app, ["show", str(folder)])

    assert result.exit_code == 2
    assert result.output == (f"error: {folder}/worker.yaml:1: concurency: unknown key; did you mean concurrency?\n")


def test_run_uses_the_file_and_hands_its_variables_to_the_handler(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for name in ("RUNPOD_WORKER_STOP_GRACE", "HF_TOKEN", "COLOUR"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLOUR", "blue")

    settings = settings_for(folder / "handler.py", {"device": None, "concurrency": 8})

    assert (settings.device, settings.concurrency, settings.grace_s, settings.stop_grace_s) == ("cpu", 8, 5.0, 2.0)
    assert os.environ["COLOUR"] == "blue"
    assert os.environ["HF_TOKEN"] == "hf_hunter2"


def test_the_schema_is_printed_for_editors() -> None:
    assert CliRunner().invoke(app, ["schema"]).output == as_text()
