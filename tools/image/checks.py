"""What an image must do when it runs: answer a job, as nobody special, and leave in order."""

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
from runpod_worker.build import Engine
from tools.image.containers import Container, start

ROOT = Path(__file__).resolve().parents[2]
FIRST_ANSWER_S = 300.0
LEAVE_S = 60.0
DRAINED = 20
"""Jobs that wait or run when the container is told to leave."""


class Wrong(Exception):
    """The image does not do what it must."""


def serve_and_leave(engine: Engine, image: str, job_input: Any) -> Iterator[str]:
    """Run the image through its life, with one line for each thing it did right.

    Raises:
        Wrong: it did something else.
    """
    with _service() as url:
        runpod_worker.endpoint_url_base = f"{url}/v2"
        endpoint = runpod_worker.Endpoint(image.partition(":")[0])
        began = time.monotonic()
        container = start(engine, image, {"RUNPOD_WORKER_URL": f"{url}/v2/{endpoint.endpoint_id}"})
        try:
            output = endpoint.run({"input": job_input}).output(timeout=FIRST_ANSWER_S)
            yield f"answered {time.monotonic() - began:.1f} s after its start: {json.dumps(output)[:100]}"
            yield from _processes(container)
            yield _healthy(container)
            yield _keeps_nothing(container)
            yield _drains(container, endpoint, job_input)
        finally:
            container.remove()


def _processes(container: Container) -> Iterator[str]:
    found = _listed(container)
    if any(user == 0 for _, user, _, _ in found):
        raise Wrong(f"a process runs as root: {found}")
    first = next(name for name, _, pid, _ in found if pid == 1)
    yield f"runs as user {found[0][1]}, process 1 is {first}"
    container.say("sh", "-c", "sleep 0.3 >/dev/null 2>&1 & exec true")
    deadline = time.monotonic() + 10
    while left := [one for one in _listed(container) if one[0] == "sleep"]:
        if time.monotonic() > deadline:
            raise Wrong(f"an orphan was not reaped: {left}")
        time.sleep(0.1)
    yield "reaped an orphan"


def _listed(container: Container) -> list[tuple[str, int, int, str]]:
    """Name, user, id and state of each process inside."""
    text = container.say("sh", "-c", "cat /proc/[0-9]*/status 2>/dev/null || true")
    form = r"^Name:\t([^\n]+)$.*?^State:\t(.).*?^Pid:\t(\d+)$.*?^Uid:\t(\d+)"
    return [(name, int(user), int(pid), state) for name, state, pid, user in re.findall(form, text, re.S | re.M)]


def _healthy(container: Container) -> str:
    dockerfile = (ROOT / "Dockerfile.base").read_text(encoding="utf-8")
    found = re.search(r"^HEALTHCHECK .*?CMD (.+?)$", dockerfile, re.S | re.M)
    command = found.group(1) if found else "exit 1"
    container.say("sh", "-c", command)
    return f"its health check passes: {command}"


def _keeps_nothing(container: Container) -> str:
    if kept := container.say("sh", "-c", "cat /etc/pip.conf 2>/dev/null || true"):
        raise Wrong(f"the build's settings of pip are in a layer: {kept}")
    return "keeps nothing of the machine that built it"


def _drains(container: Container, endpoint: Any, job_input: Any) -> str:
    jobs = [endpoint.run({"input": job_input}) for _ in range(DRAINED)]
    began = time.monotonic()
    container.terminate()
    code = container.wait(LEAVE_S)
    statuses = Counter(job.status() for job in jobs)
    if code != 0 or statuses.keys() - {"COMPLETED", "IN_QUEUE"}:
        raise Wrong(f"left with exit status {code}, its jobs were {dict(statuses)}")
    told = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    return f"drained in {time.monotonic() - began:.1f} s after SIGTERM, exit status 0; of {DRAINED} jobs {told}"


@contextmanager
def _service() -> Iterator[str]:
    command = [sys.executable, "-m", "runpod_worker", "serve", "--memory", "--port", "0", "--log-level", "WARN"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:  # noqa: S603 - our own program
        try:
            line = service.stdout.readline() if service.stdout else ""
            found = re.search(r"(http://\S+)/v2/", line)
            if found is None:
                raise Wrong(f"the job service did not start: {line!r}")
            yield found.group(1)
        finally:
            service.terminate()
