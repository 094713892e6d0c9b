"""Whole jobs through the real service on SQLite, durable on disk, compared with LitServe, which stores nothing.

`python -m benchmarks.end_to_end [--seconds 5] [--runs 3]`: no-op jobs by /runsync with 1, 16 and 64 callers, the two in
alternation; then the time from submission to take with 1 and with 1,000 idle workers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.contenders import Checkout, process_stat
from benchmarks.load import BODY, apply_load, free_port, until_ready

HERE = Path(__file__).parent
THIS = Checkout("ours", HERE.parent)
LITSERVE = "litserve"
LITSERVE_VENV = HERE.parent / ".venv-litserve"
CALLERS = (1, 16, 64)
RUNSYNC = "/v2/benchmark/runsync"
EXIT_TIMEOUT_S = 10.0

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


@dataclass(frozen=True)
class Site:
    """A running service and its worker."""

    port: int
    service: subprocess.Popen[bytes]
    agent: subprocess.Popen[bytes]

    def resident_mib(self) -> dict[str, float]:
        """Resident memory of the service's process and of the worker's agent."""
        stats = {"service": process_stat(Path(f"/proc/{self.service.pid}"))}
        stats["agent"] = process_stat(Path(f"/proc/{self.agent.pid}"))
        return {name: stat.resident_bytes / 2**20 if stat else float("nan") for name, stat in stats.items()}


@asynccontextmanager
async def processes(*commands: list[str], env: Mapping[str, str]) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
    """Start the commands, each in a session of its own, and end them on exit."""
    started = [
        subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, cwd=HERE, env=os.environ | dict(env)
        )
        for command in commands
    ]
    try:
        yield started
    finally:
        for process in reversed(started):  # the worker first: without its service it would wait for it
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_TIMEOUT_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@asynccontextmanager
async def site(checkout: Checkout, folder: Path) -> AsyncIterator[Site]:
    """Run the checkout's service and worker, with their data in a new folder."""
    folder.mkdir()
    handler = folder / "handler.py"
    handler.write_text(OUR_HANDLER)
    port = free_port()
    module = [checkout.python, "-m", "runpod_worker"]
    serve = [*module, "serve", "--port", str(port), "--data", str(folder / "data"), "--log-level", "ERROR"]
    run = [*module, "run", str(handler), "--url", f"http://127.0.0.1:{port}/v2/benchmark", "--log-level", "ERROR"]
    env = checkout.env | {"RUNPOD_WORKER_SPOOL": str(folder / "spool")}
    async with processes(serve, run, env=env) as (service, agent):
        await until_ready(port, RUNSYNC)
        yield Site(port, service, agent)


@asynccontextmanager
async def litserve(folder: Path) -> AsyncIterator[int]:
    """Run LitServe with a no-op; its port."""
    port = free_port()
    server = folder / "server.py"
    server.write_text(LITSERVE_SERVER)
    async with processes([str(LITSERVE_VENV / "bin/python"), str(server), str(port)], env={}):
        await until_ready(port, "/predict")
        yield port


def install_litserve() -> None:
    """Make LitServe's environment, once."""
    python = LITSERVE_VENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(LITSERVE_VENV)], check=True)
    if subprocess.run([str(python), "-c", "import litserve"], capture_output=True, check=False).returncode:
        subprocess.run([str(python), "-m", "pip", "install", "-q", LITSERVE], check=True)


def fdatasync_ms(folder: Path) -> float:
    """The median time of one durable write. A job needs two; all waiting jobs share them."""
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
    """Return the report: for each number of callers our figures and LitServe's; then the times to take."""
    rows = []
    with tempfile.TemporaryDirectory(dir=data_in) as name:
        folder = Path(name)
        async with site(THIS, folder / "ours") as ours, litserve(folder) as litserve_port:
            for callers in CALLERS:
                rates, medians, litserve_rates = [], [], []
                for _ in range(runs):
                    load = await apply_load(ours.port, RUNSYNC, callers, seconds)
                    rates.append(load.requests_per_s)
                    medians.append(load.p50_ms)
                    litserve_rates.append(
                        (await apply_load(litserve_port, "/predict", callers, seconds)).requests_per_s
                    )
                rows.append(format_row(callers, rates, medians, litserve_rates))
        async with site(THIS, folder / "again") as ours:
            waits = [(workers, await submission_to_take_ms(ours.port, workers)) for workers in (1, 1000)]
    lines = [f"- submit -> taken with {workers:,} idle workers: {wait:.2f} ms at the median" for workers, wait in waits]
    head = "| callers | ours, requests/s | ours, p50 ms | LitServe, requests/s | ours / LitServe |"
    return [head, "|---|---|---|---|---|", *rows, "", *lines]


async def submission_to_take_ms(port: int, workers: int, rounds: int = 200) -> float:
    """The median time from the start of a /run request until one of `workers` open takes has the job."""
    taken_at: asyncio.Queue[float] = asyncio.Queue()

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
                    taken_at.put_nowait(now)
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
        times.append(1000 * (await taken_at.get() - begin))
        await reader.readuntil(b"}")
    writer.close()
    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    return statistics.median(times)


def format_row(callers: int, rates: Sequence[float], medians: Sequence[float], litserve_rates: Sequence[float]) -> str:
    """A row of the table."""
    rate, litserve_rate = statistics.median(rates), statistics.median(litserve_rates)
    p50_ms = statistics.median(medians)
    return f"| {callers} | {rate:,.0f} | {p50_ms:.2f} | {litserve_rate:,.0f} | {rate / litserve_rate:.2f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data-in", type=Path, default=HERE.parent, help="the disk for the jobs")
    options = parser.parse_args()
    install_litserve()
    print(f"one write of 4 KiB + fdatasync on that disk: {fdatasync_ms(options.data_in):.2f} ms at the median")
    print("\n".join(uvloop.run(compare(options.seconds, options.runs, options.data_in))))
