"""Real processes: `runpod-worker serve` on a free port, `runpod-worker run` on a handler file written by the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    """Ask again and again, from outside the processes under test, until the answer is true."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
    return answer


@dataclass
class Fleet:
    """A service and its workers, each a process of its own."""

    folder: Path
    port: int
    endpoint: str = "ep"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    until = staticmethod(until)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/{self.endpoint}"

    def serve(self, *options: str) -> subprocess.Popen[bytes]:
        data = str(self.folder / "data")
        process = self.start("serve", "--port", str(self.port), "--data", data, *options)
        until(lambda: self.get("health") is not None, "the service answers")
        return process

    def worker(self, handler: str, *options: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        file = self.folder / f"handler{len(self.processes)}.py"
        head = "import os, sys, time\nfrom runpod_worker import Worker\nworker = Worker()\n"
        tail = '\nif __name__ == "__main__":\n    worker.start()\n'
        file.write_text(head + textwrap.dedent(handler) + tail)
        return self.start("run", str(file), "--url", self.url, *options, env=env)

    def start(self, *args: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "runpod_worker", *args], env=os.environ | (env or {}), start_new_session=True
        )
        self.processes.append(process)
        return process

    def get(self, path: str) -> Any:
        return self.send("GET", path)

    def post(self, path: str, body: object = None) -> Any:
        return self.send("POST", path, body)

    def send(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the reply; None when the service is not there."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=100) as reply:
                return json.load(reply)
        except OSError:
            return None

    def run(self, job_input: object, **more: object) -> str:
        view = until(lambda: self.post("run", {"input": job_input, **more}), "the job is accepted")
        return str(view["id"])

    def ended(self, job_id: str) -> dict[str, Any]:
        def final() -> Any:
            view = self.get(f"status-sync/{job_id}?wait=5000")
            return view if view and view["status"] not in ("IN_QUEUE", "IN_PROGRESS") else None

        view_at_end: dict[str, Any] = until(final, f"job {job_id} ends")
        return view_at_end

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet without a service yet; the test may kill the one that it starts."""
    fleet = Fleet(tmp_path, free_port())
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def service_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a service that the tests of a file share."""
    fleet = Fleet(tmp_path_factory.mktemp("service"), free_port())
    fleet.serve()
    yield fleet.port
    fleet.close()


@pytest.fixture
def workers(tmp_path: Path, service_port: int) -> Iterator[Fleet]:
    """Workers on an endpoint of their own of the shared service."""
    fleet = Fleet(tmp_path, service_port, endpoint=f"ep-{uuid.uuid4().hex[:8]}")
    yield fleet
    fleet.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
