"""`python -m benchmarks.soak [--seconds 3600] [--write docs]`: service and workers under mixed load, for long.

Callers send short and long jobs, streams, files, jobs that fail, that end their process, and that are cancelled. Every
second the memory, threads and file descriptors of the service, the agents and the executors are sampled. A process is
flat if the median of the run's last fifth is not above that of its second fifth by more than a tenth and 8 MiB, or 4
threads or descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import textwrap
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.soak_picture import draw

HANDLER = """
import os, time
from runpod_worker import Worker

worker = Worker()


@worker.handler
def handler(job):
    kind = job["input"]["kind"]
    if kind == "long":
        time.sleep(2)
    elif kind == "file":
        return {"url": job.save(os.urandom(200_000), "data.bin")}
    elif kind == "error":
        raise ValueError("as asked")
    elif kind == "crash":
        os._exit(3)
    return "x" * 1000


worker.start()
"""

STREAM = """
from runpod_worker import Worker

worker = Worker()


@worker.handler
def handler(job):
    for number in range(50):
        yield {"number": number, "text": "x" * 100}


worker.start()
"""

KINDS = {"short": 70, "long": 6, "file": 10, "error": 8, "cancel": 5, "crash": 1}
"""Jobs of the plain endpoint, by weight."""

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
CALLERS = 6
STREAM_CALLERS = 2


@dataclass
class Samples:
    """Samples of one process role over time."""

    memory_mib: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def add(self, pids: list[int]) -> None:
        """Add one sample: the sums over these processes."""
        memory = threads = descriptors = 0.0
        for pid in pids:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                memory += int(status.partition("VmRSS:")[2].split()[0]) / 1024
                threads += int(status.partition("Threads:")[2].split()[0])
                descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            except (OSError, IndexError, ValueError):  # it has just ended
                continue
        self.memory_mib.append(memory)
        self.threads.append(threads)
        self.descriptors.append(descriptors)


def growth(values: list[float]) -> tuple[float, float]:
    """Return the medians of the second and the last fifth."""
    fifth = max(1, len(values) // 5)
    return statistics.median(values[fifth : 2 * fifth] or values), statistics.median(values[-fifth:])


def is_flat(values: list[float], allowance: float) -> bool:
    """Whether the last fifth is not clearly above the second one."""
    before, after = growth(values)
    return after <= before * 1.1 + allowance


class Soak:
    """One run in a folder."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.samples = {role: Samples() for role in ("service", "agents", "executors")}
        self.ended: Counter[str] = Counter()
        self.lost: list[str] = []

    async def run(self) -> None:
        """Start everything, send jobs until the time is over, and wait for the last results."""
        port = self._base.rpartition(":")[2]
        service = await self._start("serve", "--port", port, "--data", str(self._folder / "data"))
        workers = [await self._worker("plain", HANDLER), await self._worker("stream", STREAM)]
        try:
            async with aiohttp.ClientSession() as session:
                await self._wait_listening(session)
                until = time.monotonic() + self._seconds
                sampling = asyncio.create_task(self._sample(service.pid, [worker.pid for worker in workers]))
                plain = [self._call(session, "plain", random.Random(n), until) for n in range(CALLERS)]
                streams = [self._call(session, "stream", random.Random(n), until) for n in range(STREAM_CALLERS)]
                await asyncio.gather(*plain, *streams)
                sampling.cancel()
        finally:
            for process in (*workers, service):
                process.send_signal(signal.SIGTERM)
                await process.wait()

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        log = (self._folder / f"{arguments[0]}.log").open("ab")
        with log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runpod_worker", *arguments, stdout=log, stderr=log, cwd=self._folder
            )

    async def _worker(self, endpoint: str, code: str) -> asyncio.subprocess.Process:
        file = self._folder / f"{endpoint}.py"
        file.write_text(textwrap.dedent(code))
        return await self._start("run", str(file), "--url", f"{self._base}/v2/{endpoint}")

    async def _wait_listening(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    async with session.get(f"{self._base}/v2/plain/health"):
                        return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def _call(self, session: aiohttp.ClientSession, endpoint: str, dice: random.Random, until: float) -> None:
        """Send one job after the other, and check how each ends."""
        url = f"{self._base}/v2/{endpoint}"
        while time.monotonic() < until:
            kind = dice.choices([*KINDS], [*KINDS.values()])[0] if endpoint == "plain" else "stream"
            body = {"input": {"kind": "long" if kind == "cancel" else kind}}
            async with session.post(f"{url}/run", json=body) as reply:
                job_id = (await reply.json())["id"]
            if kind == "cancel":
                await session.post(f"{url}/cancel/{job_id}")
            status = ""
            deadline = time.monotonic() + 120
            while status not in FINAL and time.monotonic() < deadline:
                route = "stream" if kind == "stream" else "status-sync"
                async with session.get(f"{url}/{route}/{job_id}?wait=5000") as reply:
                    status = (await reply.json()).get("status", "")
            self.ended[f"{kind}: {status}"] += 1
            if status not in FINAL:
                self.lost.append(job_id)

    async def _sample(self, service: int, agents: list[int]) -> None:
        while True:
            executors = [
                int(pid) for agent in agents for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
            ]
            for role, pids in zip(self.samples, ([service], agents, executors), strict=True):
                self.samples[role].add(pids)
            await asyncio.sleep(1)


def report(soak: Soak) -> dict[str, object]:
    """Return what the run showed, as JSON values."""
    rows: dict[str, object] = {}
    for role, samples in soak.samples.items():
        for name, values, allowance in (
            ("memory_mib", samples.memory_mib, 8.0),
            ("threads", samples.threads, 4.0),
            ("descriptors", samples.descriptors, 4.0),
        ):
            before, after = growth(values)
            rows[f"{role}.{name}"] = {
                "before": round(before, 1),
                "after": round(after, 1),
                "flat": is_flat(values, allowance),
            }
    return {"jobs": dict(sorted(soak.ended.items())), "lost": soak.lost, "samples": rows}


def main() -> int:
    """Run, print the report, and draw the picture; 1 if something grew or was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--write", type=Path, help="folder for soak.svg")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("RUNPOD_WORKER_SPOOL", str(Path(folder) / "spool"))
        soak = Soak(Path(folder), arguments.seconds)
        asyncio.run(soak.run())
    result = report(soak)
    print(json.dumps(result, indent=1))
    if arguments.write is not None:
        (arguments.write / "soak.svg").write_text(draw({role: vars(soak.samples[role]) for role in soak.samples}))
    rows = result["samples"]
    flat = isinstance(rows, dict) and all(row["flat"] for row in rows.values())
    return 0 if flat and not soak.lost else 1


if __name__ == "__main__":
    sys.exit(main())
