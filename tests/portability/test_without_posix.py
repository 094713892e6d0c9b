"""The development commands on a system without POSIX, such as Windows; sitecustomize.py takes it away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import runpod_worker

PACKAGE = Path(runpod_worker.__file__).parent
WITHOUT_POSIX = Path(__file__).parent / "without_posix"
HANDLER = """
from runpod_worker import File, Worker

worker = Worker()

@worker.handler
def handler(job):
    return {"echo": job["input"], "saved": job.save(b"bytes", "saved.txt")}

worker.start()
"""
TIMEOUT_S = 60.0


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "handler.py"
    path.write_text(HANDLER)
    (tmp_path / "test_input.json").write_text('{"input": {"n": 1}}')
    return path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "runpod_worker", "serve", "--port", str(port), "--data", str(tmp_path / "data")]
    process = subprocess.Popen(command, env=environment())
    yield f"http://127.0.0.1:{port}/v2/ep"
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 0


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(WITHOUT_POSIX)}


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S
    )


def cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run("-m", "runpod_worker", *arguments, folder=folder)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_posix_is_really_gone(tmp_path: Path) -> None:
    names = "(os, 'fork'), (signal, 'SIGHUP'), (socket, 'AF_UNIX')"
    code = f"import os, signal, socket; print([hasattr(*name) for name in ({names})])"

    assert run("-c", code, folder=tmp_path).stdout == "[False, False, False]\n"
    assert "No module named 'fcntl'" in run("-c", "import fcntl", folder=tmp_path).stderr


def test_every_module_can_be_imported(tmp_path: Path) -> None:
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]
    modules = [name for name in modules if not name.startswith("runpod_worker.conformance.handlers.")]
    code = f"""if True:
        import importlib, traceback
        for name in {modules}:
            try:
                importlib.import_module(name)
            except BaseException:
                print(name, traceback.format_exc())
    """

    assert run("-c", code, folder=tmp_path).stdout == ""


def test_a_handler_is_tried(handler: Path) -> None:
    done = cli("test", str(handler), folder=handler.parent)

    assert done.returncode == 0, done.stderr
    assert '"n": 1' in done.stdout


def test_a_handler_is_tried_by_running_its_file(handler: Path) -> None:
    done = run(str(handler), folder=handler.parent)

    assert done.returncode == 0, done.stderr
    assert '"n": 1' in done.stdout


def test_a_template_is_copied_and_tried(tmp_path: Path) -> None:
    done = cli("init", "hello", "mine", folder=tmp_path)
    tried = cli("test", "handler.py", folder=tmp_path / "mine")

    assert (done.returncode, tried.returncode) == (0, 0), done.stderr + tried.stderr


def test_a_service_takes_jobs_of_a_caller(service: str, tmp_path: Path) -> None:
    wait_for(f"{service}/health")

    called = cli("call", service, "{}", "--no-wait", folder=tmp_path)

    assert called.returncode == 0, called.stderr
    with urllib.request.urlopen(f"{service}/status/{called.stdout.strip()}") as reply:
        assert json.load(reply)["status"] == "IN_QUEUE"


def test_two_services_do_not_share_a_folder(service: str, tmp_path: Path) -> None:
    wait_for(f"{service}/health")

    second = cli("serve", "--port", "0", "--data", "data", folder=tmp_path)

    assert second.returncode == 1
    assert "in use by another process" in second.stderr


@pytest.mark.parametrize("command", ["run", "dev"])
def test_a_worker_says_in_one_line_what_it_needs(command: str, handler: Path) -> None:
    options = ["--url", "http://127.0.0.1:1/v2/ep"] if command == "run" else []

    done = cli(command, str(handler), *options, folder=handler.parent)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs Unix sockets" in done.stderr
