"""Checks a running image: it answers a job, runs as an ordinary user, and drains on SIGTERM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import runpod_worker
from runpod_worker.build import Builder
from tools.image.containers import Container, start

ROOT = Path(__file__).resolve().parents[2]
FIRST_OUTPUT_TIMEOUT_S = 300.0
SHUTDOWN_TIMEOUT_S = 60.0
DRAINED_JOBS = 20
"""Jobs that are queued or running when the container gets SIGTERM."""


class ImageFailed(Exception):
    """The image failed a check."""


def check(builder: Builder, image: str, job_input: Any) -> Iterator[str]:
    """Run the image, and yield a line for each check that passes.

    Raises:
        ImageFailed: a check failed.
    """
    with _service() as url:
        runpod_worker.endpoint_url_base = f"{url}/v2"
        endpoint = runpod_worker.Endpoint(image.partition(":")[0])
        began = time.monotonic()
        container = start(builder, image, {"RUNPOD_WORKER_URL": f"{url}/v2/{endpoint.endpoint_id}"})
        try:
            output = endpoint.run({"input": job_input}).output(timeout=FIRST_OUTPUT_TIMEOUT_S)
            yield f"answered {time.monotonic() - began:.1f} s after its start: {json.dumps(output)[:100]}"
            yield from _check_processes(container)
            yield _check_health(container)
            yield _check_layers(container)
            yield _check_drain(container, endpoint, job_input)
        finally:
            container.remove()


def _check_processes(container: Container) -> Iterator[str]:
    processes = _processes_inside(container)
    if any(user == 0 for _, user, _, _ in processes):
        raise ImageFailed(f"a process runs as root: {processes}")
    first = next(name for name, _, pid, _ in processes if pid == 1)
    yield f"runs as user {processes[0][1]}, process 1 is {first}"
    container.run("sh", "-c", "sleep 0.3 >/dev/null 2>&1 & exec true")
    deadline = time.monotonic() + 10
    while left := [process for process in _processes_inside(container) if process[0] == "sleep"]:
        if time.monotonic() > deadline:
            raise ImageFailed(f"an orphan was not reaped: {left}")
        time.sleep(0.1)
    yield "reaped an orphan"


def _processes_inside(container: Container) -> list[tuple[str, int, int, str]]:
    """Name, user, id and state of each process inside."""
    text = container.run("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null || true")
    form = r"^Name:\t([^\n]+)$.*?^State:\t(.).*?^Pid:\t(\d+)$.*?^Uid:\t(\d+)"
    return [(name, int(user), int(pid), state) for name, state, pid, user in re.findall(form, text, re.S | re.M)]


def _check_health(container: Container) -> str:
    dockerfile = (ROOT / "Dockerfile.base").read_text(encoding="utf-8")
    match = re.search(r"^HEALTHCHECK .*?CMD (.+?)$", dockerfile, re.S | re.M)
    command = match.group(1) if match else "exit 1"
    container.run("sh", "-c", command)
    return f"its health check passes: {command}"


def _check_layers(container: Container) -> str:
    if kept := container.run("sh", "-c", "cat /etc/pip.conf 2>/dev/null || true"):
        raise ImageFailed(f"the pip settings of the build are in a layer: {kept}")
    return "contains no settings of the machine that built it"


def _check_drain(container: Container, endpoint: Any, job_input: Any) -> str:
    jobs = [endpoint.run({"input": job_input}) for _ in range(DRAINED_JOBS)]
    began = time.monotonic()
    container.terminate()
    code = container.wait(SHUTDOWN_TIMEOUT_S)
    statuses = Counter(job.status() for job in jobs)
    if code != 0 or statuses.keys() - {"COMPLETED", "IN_QUEUE"}:
        raise ImageFailed(f"exit status {code} after SIGTERM, and its jobs were {dict(statuses)}")
    counts = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    return f"drained in {time.monotonic() - began:.1f} s after SIGTERM, exit status 0; of {DRAINED_JOBS} jobs {counts}"


@contextmanager
def _service() -> Iterator[str]:
    command = [sys.executable, "-m", "runpod_worker", "serve", "--memory", "--port", "0", "--log-level", "WARN"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:  # noqa: S603 - our own program
        try:
            line = service.stdout.readline() if service.stdout else ""
            match = re.search(r"(http://\S+)/v2/", line)
            if match is None:
                raise ImageFailed(f"the job service did not start: {line!r}")
            yield match.group(1)
        finally:
            service.terminate()
