"""The log lines of `serve`: dated, as text or as JSON."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta

import pytest


def logged(*options: str, **env: str) -> list[str]:
    """The lines of a service that was started and stopped."""
    command = [sys.executable, "-u", "-m", "runpod_worker", "serve", "--memory", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | env)
    assert process.stdout
    process.stdout.readline()  # it listens
    process.send_signal(signal.SIGTERM)
    _, lines = process.communicate(timeout=60)
    assert process.returncode == 0
    return lines.splitlines()


def test_text_lines_have_date_time_and_offset() -> None:
    lines = logged(RUNPOD_SERVICE_PROT="1")

    assert [line.split()[2] for line in lines] == ["setting.unknown", "service.listening", "service.closed"]
    assert lines[0].endswith("variable=RUNPOD_SERVICE_PROT nearest=RUNPOD_SERVICE_PORT")
    assert all(datetime.fromisoformat(line.split()[0]).utcoffset() == timedelta(0) for line in lines)


@pytest.mark.parametrize(
    ("options", "env"), [(("--log-format", "json"), {}), ((), {"RUNPOD_SERVICE_LOG_FORMAT": "json"})]
)
def test_json_lines_have_a_time_too(options: tuple[str, ...], env: dict[str, str]) -> None:
    lines = [json.loads(line) for line in logged(*options, **env)]

    assert [line["message"] for line in lines] == ["service.listening", "service.closed"]
    assert all(datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0) for line in lines)


def test_a_level_from_the_environment_applies() -> None:
    assert logged(RUNPOD_SERVICE_LOG_LEVEL="ERROR") == []
