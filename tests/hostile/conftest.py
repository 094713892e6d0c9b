"""A real service process, sent raw bytes, with a neighbour whose jobs must go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 20.0
"""A reply that takes longer counts as a hang. Long polls of this service end after 0.2 s."""

SHORT_POLLS = {f"RUNPOD_SERVICE_{name}_POLL_TIMEOUT": "0.2" for name in ("TAKE", "RUNSYNC", "STREAM", "CANCEL")}


class ServiceProcess:
    """`runpod-worker serve` with short long polls."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
        self.log = folder / "log"
        self._neighbour = asyncio.Lock()
        options = ("--port", str(self.port), "--data", str(folder / "data"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runpod_worker", "serve", *options],
                env={**os.environ, **SHORT_POLLS},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def start(self) -> Any:
        """Wait until the service answers; once per event loop."""
        self._neighbour = asyncio.Lock()
        async with asyncio.timeout(TIMEOUT_S):
            while self.process.poll() is None:
                with suppress(OSError):
                    return await self.call("GET", "/v2/neighbour/health")
                await asyncio.sleep(0.02)
        pytest.fail(self.log.read_text())

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    async def send(self, data: bytes) -> int | None:
        """Return the status of the reply to these bytes; None if the service hangs up without one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(data)
                head = await reader.readuntil(b"\r\n")
            return int(head.split()[1])
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.close()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Send a correct request and return the JSON of its reply."""
        data = b"" if body is None else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(request(method, path, {"Connection": b"close"}, data))
                head, _, content = (await reader.read()).partition(b"\r\n\r\n")
            assert head.split()[1] in (b"200", b"204"), (path, head, content)
            return json.loads(content, parse_int=float) if content.strip() else None  # huge numbers too
        finally:
            writer.close()

    async def submit_and_take(self, endpoint: str, worker: str) -> str:
        """Return the id of a job that this worker holds, or that another request has taken meanwhile."""
        job_id = (await self.call("POST", f"/v2/{endpoint}/run", {"input": 1}))["id"]
        job = await self.call("GET", f"/v2/{endpoint}/job-take/{worker}")
        return str(job_id if job is None else job["id"])

    async def answer_jobs(self, endpoint: str) -> None:
        """Be a worker that answers every job at once, until cancelled."""
        while True:
            for job in await self.call("GET", f"/v2/{endpoint}/job-take-batch/answering?batch_size=100") or []:
                await self.call("POST", f"/v2/{endpoint}/job-done/answering/{job['id']}", {"output": 1})

    async def check_neighbour(self) -> None:
        """Run one job of another endpoint from submission to its result."""
        async with self._neighbour:
            job_id = await self.submit_and_take("neighbour", "w")
            await self.call("POST", f"/v2/neighbour/job-done/w/{job_id}", {"output": "fine"})
            view = await self.call("GET", f"/v2/neighbour/status/{job_id}")
        assert (view["status"], view["output"]) == ("COMPLETED", "fine")

    @property
    def memory_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def open_files(self) -> int:
        """Return the number of open file descriptors, once closed connections are gone."""
        folder, deadline = Path(f"/proc/{self.process.pid}/fd"), time.monotonic() + TIMEOUT_S
        while (count := len([*folder.iterdir()])) > 40 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return count


def request(method: str, path: str, headers: Mapping[str, bytes], body: bytes) -> bytes:
    """Return the bytes of a request; `headers` win over ours."""
    lines = {"Host": b"127.0.0.1", "Content-Type": b"application/json", "Content-Length": b"%d" % len(body), **headers}
    head = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n".encode() + head + b"\r\n" + body


@pytest.fixture(scope="module")
def service_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tmp_path_factory.mktemp("service"))
    yield process
    process.close()
