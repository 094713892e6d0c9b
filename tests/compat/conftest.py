"""Real services and workers as processes, and the reference SDK in environments that make has installed."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tools.compat_environments import NODE, REFERENCE_VERSION, has_node, python_of, stamp_of

TIMEOUT_S = float(os.environ.get("COMPAT_TIMEOUT", "60"))
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask again and again, from outside the processes under test, until the answer is true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return answer


@dataclass
class Worker:
    """A worker's process."""

    process: subprocess.Popen[bytes]
    name: str
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, name: signal.Signals) -> None:
        os.kill(self.process.pid, name)

    def kill_all(self) -> None:
        """Kill the worker and all its processes, as the end of a container does."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(20)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Services:
    """Job services in memory, one process for each set of options; tests use endpoints of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[tuple[str, ...], int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._endpoints = itertools.count()

    def new_endpoint(self) -> str:
        return f"ep{next(self._endpoints)}"

    def port_of(self, options: tuple[str, ...]) -> int:
        """The port of the service with these options; starts it when it is not running."""
        if options not in self._ports:
            port = self._ports[options] = free_port()
            command = [sys.executable, "-m", "runpod_worker", "serve", "--port", str(port), "--memory", *options]
            with (self._folder / f"{port}.log").open("wb") as log:
                self._processes.append(subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log))
            until(lambda: answers(f"http://127.0.0.1:{port}/v2/ep/health"), "the service answers")
        return self._ports[options]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=100):
            return True
    except OSError:
        return False


@dataclass
class Site:
    """An endpoint of a job service, its callers, and its workers."""

    folder: Path
    services: Services
    endpoint: str
    port: int = 0
    workers: list[Worker] = field(default_factory=list)

    until = staticmethod(until)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2"

    @property
    def url(self) -> str:
        return f"{self.base}/{self.endpoint}"

    def serve(self, *options: str) -> None:
        self.port = self.services.port_of(options)

    def variables(self, name: str) -> dict[str, str]:
        """The environment variables that the platform sets for a worker."""
        gpu = "gpu=NVIDIA+A40"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/job-take/{name}?{gpu}",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/job-done/$RUNPOD_POD_ID/$ID?{gpu}",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/job-stream/$RUNPOD_POD_ID/$ID?{gpu}",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/ping/$RUNPOD_POD_ID?{gpu}",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_POD_ID": name,
            "RUNPOD_ENDPOINT_ID": self.endpoint,
            "RUNPOD_AI_API_KEY": "token",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        }

    def worker(self, *command: str, name: str = "", ready: bool = True, **env: str) -> Worker:
        name = name or f"pod-{len(self.workers)}"
        home = self.folder / f"{name}-{len(self.workers)}"  # SDKs before 1.10.1 keep a file in it: never shared
        home.mkdir()
        log = home / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env=os.environ | self.variables(name) | {"HOME": str(home)} | env,
                cwd=home,
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        worker = Worker(process, name, log)
        self.workers.append(worker)
        if ready:
            until(lambda: self._is_ready(worker), f"{name} asks for jobs")
        return worker

    def _is_ready(self, worker: Worker) -> bool:
        assert worker.process.poll() is None, worker.output
        workers = self.health()["workers"]
        return workers["idle"] + workers["running"] > 0

    def handler(self, code: str, *, name: str = "handler.py") -> Path:
        file = self.folder / name
        file.write_text(textwrap.dedent(code))
        return file

    def health(self) -> Any:
        try:
            return self.get("health")
        except OSError:
            return None

    def get(self, path: str) -> Any:
        return self._send("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=100) as reply:
            return json.load(reply)

    def run(self, job_input: object, **more: object) -> str:
        return str(self.post("run", {"input": job_input, **more})["id"])

    def status(self, job_id: str) -> Any:
        return self.get(f"status/{job_id}")

    def ended(self, job_id: str) -> Any:
        def final() -> Any:
            view = self.get(f"status-sync/{job_id}?wait=5000")
            return view if view["status"] in FINAL else None

        return until(final, f"job {job_id} ends")

    def stream(self, job_id: str) -> tuple[str, list[Any]]:
        """The final status and all chunks."""
        chunks: list[Any] = []
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            view = self.get(f"stream/{job_id}")
            chunks += [chunk["output"] for chunk in view["stream"]]
            if view["status"] in FINAL:
                return view["status"], chunks
        raise AssertionError(f"the stream of {job_id} does not end; it gave {chunks}")

    def close(self) -> None:
        for worker in self.workers:
            worker.kill_all()


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(tmp_path_factory.mktemp("services"))
    yield services
    services.close()


@pytest.fixture
def site(tmp_path: Path, services: Services) -> Iterator[Site]:
    site = Site(tmp_path, services, services.new_endpoint())
    yield site
    site.close()


def require(is_installed: bool, what: str) -> None:
    """Skip the test when something is not installed; in CI fail."""
    if not is_installed:
        message = f"{what} is not installed; run: python -m tools.compat_environments"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@pytest.fixture(scope="session")
def reference(sdk: Callable[[str], Path]) -> Path:
    """The Python of an environment with the reference SDK and the openai client."""
    return sdk(REFERENCE_VERSION)


@pytest.fixture(scope="session")
def sdk() -> Callable[[str], Path]:
    """The Python of an environment with that version of the reference SDK."""

    def python(version: str) -> Path:
        require(stamp_of(version).exists(), f"runpod {version}")
        return python_of(version)

    return python


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A folder with RunPod's JavaScript SDK in it."""
    require(has_node(), "RunPod's JavaScript SDK (needs npm)")
    return NODE


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what each version of the SDK was seen to do, when all were tried."""
    if os.environ.get("COMPAT") != "all":
        return
    seen: dict[str, dict[str, str]] = {}
    versions: set[str] = set()
    for outcome, mark in (("passed", "ok"), ("failed", "FAIL"), ("error", "FAIL")):
        for report in terminalreporter.stats.get(outcome, []):
            match = re.search(r"test_sdk_workers.py::test_(\w+)\[(?:(\w+)-)?([\d.]+)(?:-(\w+))?\]", report.nodeid)
            if match and (outcome != "passed" or report.when == "call"):
                promise = " ".join(filter(None, (match[1].replace("_", " "), match[2] or match[4])))
                seen.setdefault(promise, {})[match[3]] = mark
                versions.add(match[3])
    if not seen:
        return
    columns = sorted(versions, key=lambda version: [int(n) for n in version.split(".")])
    terminalreporter.section("the reference SDK as the worker of our service")
    rows = [
        ("", *columns),
        *((promise, *(row.get(version, "-") for version in columns)) for promise, row in seen.items()),
    ]
    width = max(len(row[0]) for row in rows)
    for first, *others in rows:
        terminalreporter.write_line(f"{first:<{width}}" + "".join(f"{cell:>8}" for cell in others))
