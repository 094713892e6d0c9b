"""Whole jobs through the real service on SQLite, durable on disk, against LitServe (direct HTTP, nothing stored).

`python -m benchmarks.end_to_end [--seconds 5] [--runs 3]`: no-op jobs by /runsync with 1, 16 and 64 callers, the two in
alternation; then how long an idle worker takes to get a job, with 1 and with 1,000 polls held.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

HERE = Path(__file__).parent
LITSERVE = "litserve"
LITSERVE_VENV = HERE.parent / ".venv-litserve"
CALLERS = (1, 16, 64)
BODY = b'{"input":{"x":1}}'

LITSERVE_SERVER = """
import sys
import litserve
class NoOp(litserve.LitAPI):
    def setup(self, device): pass
    def predict(self, request): return {"output": 1}
if __name__ == "__main__":
    server = litserve.LitServer(NoOp(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="error")
"""

OUR_HANDLER = """
from runpod_worker import Worker
worker = Worker()
@worker.handler
def handler(job): return 1
worker.start()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Caller(asyncio.Protocol):
    """One kept-alive connection that sends the same request again as soon as it is answered."""

    def __init__(self, request: bytes, until: float, times: list[float]) -> None:
        self._request = request
        self._until = until
        self._times = times
        self._buffer = b""
        self.done = asyncio.get_running_loop().create_future()
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._begin = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = body[length:]
        now = time.perf_counter()
        self._times.append(now - self._begin)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


async def load(port: int, path: str, callers: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and the median time of one in milliseconds."""
    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    times: list[float] = []
    begin = time.perf_counter()
    loop = asyncio.get_running_loop()
    make: Callable[[], Caller] = lambda: Caller(request, begin + seconds, times)  # noqa: E731
    connections = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(callers)]
    await asyncio.gather(*(one.done for one in connections))
    if errors := sum(one.errors for one in connections):
        raise RuntimeError(f"{errors} requests were not answered with 200")
    return len(times) / (time.perf_counter() - begin), 1000 * statistics.median(times)


@asynccontextmanager
async def processes(*commands: list[str]) -> AsyncIterator[None]:
    started = [subprocess.Popen(one, start_new_session=True, stdout=subprocess.DEVNULL, cwd=HERE) for one in commands]
    try:
        yield
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


async def answering(port: int, path: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return void(await load(port, path, 1, 0.0))
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def void(_: object) -> None:
    return None


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    folder.mkdir(exist_ok=True)
    handler = folder / "handler.py"
    handler.write_text(OUR_HANDLER)
    module = [sys.executable, "-m", "runpod_worker"]
    serve = [*module, "serve", "--port", str(port), "--data", str(folder / "data"), "--log-level", "ERROR"]
    run = [*module, "run", str(handler), "--url", f"http://127.0.0.1:{port}/v2/bench", "--log-level", "ERROR"]
    async with processes(serve, run):
        await answering(port, "/v2/bench/runsync")
        yield port


@asynccontextmanager
async def litserve(folder: Path) -> AsyncIterator[int]:
    port = free_port()
    server = folder / "server.py"
    server.write_text(LITSERVE_SERVER)
    async with processes([str(LITSERVE_VENV / "bin/python"), str(server), str(port)]):
        await answering(port, "/predict")
        yield port


def install_litserve() -> None:
    python = LITSERVE_VENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(LITSERVE_VENV)], check=True)
    if subprocess.run([str(python), "-c", "import litserve"], capture_output=True, check=False).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "-q", LITSERVE], check=True)


def fdatasync_ms(folder: Path) -> float:
    """What the disk itself asks for one durable write; a job needs two, shared by all that wait together."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(200):
            file.seek(0)
            file.write(b"x" * 4096)
            file.flush()
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


async def compare(seconds: float, runs: int, data_in: Path) -> list[str]:
    """The report: for each number of callers our requests/s and medians, LitServe's requests/s; then the wake-up."""
    found = []
    with tempfile.TemporaryDirectory(dir=data_in) as folder:
        async with ours(Path(folder)) as our_port, litserve(Path(folder)) as their_port:
            for callers in CALLERS:
                rates, medians, theirs = [], [], []
                for _ in range(runs):
                    rate, median = await load(our_port, "/v2/bench/runsync", callers, seconds)
                    rates.append(rate)
                    medians.append(median)
                    theirs.append((await load(their_port, "/predict", callers, seconds))[0])
                found.append((callers, rates, medians, theirs))
        async with ours(Path(folder) / "again") as our_port:
            wakes = [(workers, await wake_up(our_port, workers)) for workers in (1, 1000)]
    lines = [f"- submit -> taken with {workers:,} idle workers: {wake:.2f} ms at the median" for workers, wake in wakes]
    return [*show(found), "", *lines]


async def wake_up(port: int, workers: int, rounds: int = 200) -> float:
    """Milliseconds from the start of a /run request until one of `workers` held polls has the job, at the median."""
    taken: asyncio.Queue[float] = asyncio.Queue()

    async def poll(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /v2/wake/job-take/w{number}?gpu=x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        try:
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                now = time.perf_counter()
                if head.startswith(b"HTTP/1.1 200"):
                    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                    await reader.readexactly(length)
                    taken.put_nowait(now)
        finally:
            writer.close()

    polls = [asyncio.create_task(poll(number)) for number in range(workers)]
    await asyncio.sleep(1.0 + workers / 500)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    submit = f"POST /v2/wake/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        writer.write(submit)
        times.append(1000 * (await taken.get() - begin))
        await reader.readuntil(b"}")
    writer.close()
    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    return statistics.median(times)


def show(found: list[tuple[int, list[float], list[float], list[float]]]) -> list[str]:
    lines = [
        "| callers | ours, requests/s | ours, p50 ms | LitServe, requests/s | ours / LitServe |",
        "|---|---|---|---|---|",
    ]
    for callers, rates, medians, theirs in found:
        mine, other = statistics.median(rates), statistics.median(theirs)
        median = statistics.median(medians)
        lines.append(f"| {callers} | {mine:,.0f} | {median:.2f} | {other:,.0f} | {mine / other:.2f} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data-in", type=Path, default=HERE.parent, help="the disk the jobs live on")
    options = parser.parse_args()
    install_litserve()
    print(f"one write of 4 KiB + fdatasync on that disk: {fdatasync_ms(options.data_in):.2f} ms at the median")
    print("\n".join(uvloop.run(compare(options.seconds, options.runs, options.data_in))))
