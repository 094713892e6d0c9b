"""`dev` and `call` as a person uses them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HANDLER = """
from runpod_worker import Worker
worker = Worker()
@worker.handler
def handler(job):
    if job["input"] == "fail":
        raise ValueError("as asked")
    return "{word} " + str(job["input"])
if __name__ == "__main__":
    worker.start()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER.replace("{word}", "hello"))
    (tmp_path / "test_input.json").write_text('{"input": "it\'s me"}')
    return tmp_path


@pytest.fixture
def dev(folder: Path) -> Iterator[tuple[str, str]]:
    """The endpoint's URL and the line to try."""
    command = [sys.executable, "-u", "-m", "runpod_worker", "dev", str(folder / "handler.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    url = process.stdout.readline().split()[-1]
    line = process.stdout.readline().partition("curl")[2]
    yield url, "curl" + line
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    process.stdout.close()


def call(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runpod_worker", "call", *args], capture_output=True, text=True, timeout=90
    )


def test_the_printed_curl_line_works_as_it_stands(dev: tuple[str, str]) -> None:
    answer = subprocess.run(["bash", "-c", dev[1]], capture_output=True, text=True, timeout=90, check=True).stdout

    assert json.loads(answer)["output"] == "hello it's me"


def test_a_changed_file_is_what_runs_next(dev: tuple[str, str], folder: Path) -> None:
    assert json.loads(call(dev[0], '"you"').stdout) == "hello you"

    (folder / "handler.py").write_text(HANDLER.replace("{word}", "goodbye"))

    deadline = time.monotonic() + 60
    while json.loads(call(dev[0], '"you"').stdout) != "goodbye you":
        assert time.monotonic() < deadline


SERVER = """
import socket, subprocess, sys
code = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(); time.sleep(600)"
server = subprocess.Popen([sys.executable, "-c", code, "{port}"], stdout=subprocess.PIPE, start_new_session=True)
if not server.stdout.readline():
    sys.exit("the port is in use")
"""


def test_a_server_that_the_handler_started_ends_when_a_file_changes(dev: tuple[str, str], folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = SERVER.replace("{port}", str(listener.getsockname()[1]))
    for word in ("one", "two"):
        (folder / "handler.py").write_text(server + HANDLER.replace("{word}", word))
        deadline = time.monotonic() + 60
        while (answer := json.loads(call(dev[0], '"you"').stdout)) != f"{word} you":
            assert time.monotonic() < deadline, answer


def test_call_says_why_a_job_failed_and_ends_with_one(dev: tuple[str, str]) -> None:
    failed = call(dev[0], '"fail"')

    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "as asked" in failed.stderr


def test_call_prints_the_output_of_a_job_without_chunks(dev: tuple[str, str]) -> None:
    streamed = call(dev[0], '"you"', "--stream")

    assert json.loads(streamed.stdout) == "hello you", streamed.stderr


def test_call_only_submits_when_asked_to(dev: tuple[str, str]) -> None:
    job_id = call(dev[0], "{}", "--no-wait").stdout.strip()

    with urllib.request.urlopen(f"{dev[0]}/status-sync/{job_id}", timeout=60) as reply:
        assert json.load(reply)["status"] == "COMPLETED"


def test_what_is_not_json_is_named_with_what_came() -> None:
    refused = call("http://127.0.0.1:9/v2/x", '{"nam')

    assert refused.returncode == 2
    assert re.fullmatch(r"error: the input: expected JSON, got '\{\"nam' .*\n", refused.stderr)


def test_every_command_explains_itself() -> None:
    env = os.environ | {"COLUMNS": "200"}
    top = subprocess.run(
        [sys.executable, "-m", "runpod_worker", "--help"], capture_output=True, text=True, env=env, timeout=60
    ).stdout
    for name in ("init", "run", "test", "dev", "serve", "call", "build", "keys", "config", "conformance"):
        assert re.search(rf"^\s+{name} +\w", top, re.MULTILINE), name
