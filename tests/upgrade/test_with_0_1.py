"""Worker and client of release 0.1 with today's service, and today's worker and client with the service of 0.1."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import runpod_worker

TODAY = Path(runpod_worker.__file__).parents[1]
WHEEL = Path(__file__).parents[1] / "data/0.1/runpod_worker-0.1.0-py3-none-any.whl"
TIMEOUT_S = 60.0

PLAIN = """
import time
import runpod_worker
from runpod_worker import Worker

worker = Worker()

@worker.handler(concurrency=2)
def handler(job):
    want = job["input"]
    if want == "fail":
        raise ValueError("as asked")
    if want == "wait":
        job.progress("waiting")
        while not job.cancelled:
            time.sleep(0.01)
    if want == "save":
        return job.save(b"saved bytes", "saved.txt")
    return {"echo": want, "package": runpod_worker.__file__}

worker.start()
"""
STREAM = """
from runpod_worker import Worker

worker = Worker()

@worker.handler
def handler(job):
    yield from range(job["input"])

worker.start()
"""
CALLER = """
import json, sys, time, urllib.request
import runpod_worker
from runpod_worker import AsyncioEndpoint, Endpoint, JobFailed

runpod_worker.endpoint_url_base, plain_id, stream_id = sys.argv[1:]
plain, stream = Endpoint(plain_id), Endpoint(stream_id)
seen = {"package": runpod_worker.__file__}

job = plain.run({"n": 1})
seen["run"] = job.output(timeout=60)
seen["run status"] = job.status()
seen["run_sync"] = plain.run_sync("hello")
seen["stream"] = list(stream.run(200).stream())

try:
    plain.run("fail").output(timeout=60)
except JobFailed as error:
    seen["failure"] = str(error)

waiting = plain.run("wait")
while waiting.view().get("output") != "waiting":
    time.sleep(0.02)
seen["cancel"] = waiting.cancel()["status"]
seen["status after cancel"] = waiting.status()

with urllib.request.urlopen(plain.run("save").output(timeout=60)) as reply:
    seen["saved"] = reply.read().decode()

async def same_from_asyncio():
    job = await AsyncioEndpoint(plain_id).run("async")
    return await job.output(timeout=60)

import asyncio
seen["asyncio"] = asyncio.run(same_from_asyncio())
print(json.dumps(seen))
"""


@dataclass
class Site:
    """Processes of one package or the other; each finds its package first on PYTHONPATH."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, package: Path, *args: str) -> None:
        command = [sys.executable, "-m", "runpod_worker", *args]
        process = subprocess.Popen(command, env=self._env(package), cwd=self.folder, start_new_session=True)
        self.processes.append(process)

    def call(self, package: Path, code: str, *args: str) -> Any:
        command = [sys.executable, "-c", code, *args]
        ended = subprocess.run(
            command, env=self._env(package), cwd=self.folder, stdout=subprocess.PIPE, timeout=2 * TIMEOUT_S, check=True
        )
        return json.loads(ended.stdout)

    def _env(self, package: Path) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(package), "RUNPOD_WORKER_SPOOL": str(self.folder / "spool")}

    def close(self) -> None:
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Results:
    """What a client saw, and where its package and the worker's is."""

    package: Path
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def release_0_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release-0.1")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture(scope="module", params=["service of today", "service of 0.1"])
def results(
    request: pytest.FixtureRequest, release_0_1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Results]:
    """One service, a worker on each of two endpoints, one client."""
    folder = tmp_path_factory.mktemp("site")
    service, others = (TODAY, release_0_1) if request.param == "service of today" else (release_0_1, TODAY)
    site, port = Site(folder), free_port()
    base = f"http://127.0.0.1:{port}/v2"
    try:
        site.start(service, "serve", "--port", str(port), "--data", str(folder / "data"))
        until(lambda: answers(f"{base}/plain/health"), "the service answers")
        for endpoint, handler in (("plain", PLAIN), ("stream", STREAM)):
            path = folder / f"{endpoint}.py"
            path.write_text(handler)
            site.start(others, "run", str(path), "--url", f"{base}/{endpoint}")
        yield Results(others, site.call(others, CALLER, base, "plain", "stream"))
    finally:
        site.close()


def test_each_side_runs_the_package_it_should(results: Results) -> None:
    expected = str(results.package / "runpod_worker/__init__.py")

    assert (results.seen["package"], results.seen["run"]["package"]) == (expected, expected)


def test_a_job_is_submitted_and_its_result_read(results: Results) -> None:
    assert (results.seen["run"]["echo"], results.seen["run status"]) == ({"n": 1}, "COMPLETED")
    assert results.seen["run_sync"]["echo"] == "hello"
    assert results.seen["asyncio"]["echo"] == "async"


def test_chunks_arrive_once_and_in_order(results: Results) -> None:
    assert results.seen["stream"] == list(range(200))


def test_the_client_reads_the_error_of_a_failed_job(results: Results) -> None:
    assert "as asked" in results.seen["failure"]


def test_a_running_job_is_cancelled(results: Results) -> None:
    assert (results.seen["cancel"], results.seen["status after cancel"]) == ("CANCELLED", "CANCELLED")


def test_a_saved_file_is_fetched(results: Results) -> None:
    assert results.seen["saved"] == "saved bytes"


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
