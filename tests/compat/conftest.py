"""Real other ends: job services and workers as processes, the reference SDK in environments of its own."""

from __future__ import annotations

import fcntl
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

ROOT = Path(__file__).parents[2]
REFERENCE_VERSION = "1.12.0"
REFERENCE = ROOT / ".venv-reference"
COMPAT = ROOT / ".venv-compat"
PATIENCE_S = float(os.environ.get("COMPAT_PATIENCE", "60"))
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask again and again, from outside the processes under test, until the answer is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return answer


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a virtual environment that has these packages; it is made when it is not there. Safe from several
    test processes at once."""
    python = folder / "bin/python"
    stamp = folder / (".has-" + "-".join(sorted(packages)).replace("=", "").replace("/", ""))
    if stamp.exists():
        return python
    COMPAT.mkdir(exist_ok=True)
    with Locked(COMPAT / f".{folder.name}.lock"):
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        if not stamp.exists():
            install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True)
            stamp.touch()
    return python


class Locked:
    """Hold a lock file against other processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


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


@dataclass
class Site:
    """One job service as a process, its callers, and its workers."""

    folder: Path
    port: int
    endpoint: str = "ep"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    until = staticmethod(until)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2"

    @property
    def url(self) -> str:
        return f"{self.base}/{self.endpoint}"

    def serve(self, *options: str) -> None:
        command = [sys.executable, "-m", "runpod_worker", "serve", "--port", str(self.port), "--memory", *options]
        with (self.folder / "service.log").open("wb") as log:
            process = subprocess.Popen(command, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        until(lambda: self.health(), "the service answers")

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
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            view = self.get(f"stream/{job_id}")
            chunks += [chunk["output"] for chunk in view["stream"]]
            if view["status"] in FINAL:
                return view["status"], chunks
        raise AssertionError(f"the stream of {job_id} does not end; it gave {chunks}")

    def close(self) -> None:
        for worker in self.workers:
            worker.kill_all()
        for process in self.processes:
            process.terminate()
            process.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = Site(tmp_path, port)
    yield site
    site.close()


@pytest.fixture(scope="session")
def reference() -> Path:
    """The Python of an environment with the reference SDK and the openai client."""
    return environment(REFERENCE, f"runpod=={REFERENCE_VERSION}", "openai")


@pytest.fixture(scope="session")
def sdk() -> Callable[[str], Path]:
    """The Python of an environment with that version of the reference SDK."""

    def python(version: str) -> Path:
        folder = REFERENCE if version == REFERENCE_VERSION else COMPAT / version
        return environment(folder, f"runpod=={version}")

    return python


@pytest.fixture(scope="session")
def locked() -> type[Locked]:
    return Locked


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
