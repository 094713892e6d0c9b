"""`python -m benchmarks.outage [--minutes 10] [--write docs]`: the job service becomes unreachable under load.

Eight slots run 50 ms jobs, four more run long ones. Then every connection is cut for the given minutes; new connections
are counted and cut. Reports which results arrived, how often the worker tried, and its CPU and memory meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import uvloop

from benchmarks import blocks
from benchmarks.contenders import OURS, Running, running
from benchmarks.fake_service import FakeService
from benchmarks.lean_http import Request, Response

SLOTS = 12
LONG = 4
LONG_S = 20.0
SHORT_S = 0.05
BEFORE_S = 5.0
JOBS = 3000
RECOVERY_TIMEOUT_S = 300.0


class Service(FakeService):
    """Counts how often each result arrives, and requeues released jobs."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(delay=delay, extensions=True)
        self.outcomes: Counter[str] = Counter()
        self._jobs_by_take: dict[str, list[tuple[str, bytes]]] = {}
        self._take_id = ""

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        self._take_id = request.header(b"x-take-id") or ""
        if "/job-return/" in request.path:
            self._requeue(json.loads(bytes(request.body)))
        elif "/job-done/" in request.path:
            self.outcomes[unquote(request.path.rpartition("/")[2])] += 1
        return super()._handle(request)

    async def _poll_take(self, max_jobs: int, batch: bool, negotiated: bool) -> Response:
        take_id = self._take_id
        if not await self._hold(self.polls):
            return Response(204)
        self._take_id = take_id
        return self._jobs(max_jobs, batch, negotiated)

    def _pop(self, max_jobs: int, *, attempt: bool) -> list[bytes]:
        self._jobs_by_take[self._take_id] = [self.queue[n] for n in range(min(max_jobs, len(self.queue)))]
        return super()._pop(max_jobs, attempt=attempt)

    def _requeue(self, release: dict[str, list[object]]) -> None:
        named = {str(job["id"]) for job in release["jobs"] if isinstance(job, dict)}
        for take_id in reversed(list(self._jobs_by_take)):  # requeue a job that was taken twice only once
            jobs = self._jobs_by_take[take_id]
            released = [job for job in jobs if take_id in release["takes"] or job[0] in named]
            self._jobs_by_take[take_id] = [job for job in jobs if job not in released]
            named -= {job_id for job_id, _ in released}
            for job in released:
                if job[0] not in self.seen.done:
                    self.add_raw(*job)


class CuttingServer(asyncio.Protocol):
    """Records the time of each connection and cuts it."""

    def __init__(self, connected_at: list[float]) -> None:
        self._connected_at = connected_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected_at.append(time.monotonic())
        transport.abort()  # type: ignore[attr-defined]  # a stream's transport has it


@dataclass(frozen=True)
class Usage:
    """CPU time and memory of all processes of a worker."""

    cpu_s: float
    resident_bytes: int


def usage(worker: Running) -> Usage:
    """CPU time and memory of the worker's processes so far."""
    return Usage(worker.cpu_s(), worker.resident_bytes())


async def run(minutes: float) -> list[list[str]]:
    """Run the outage and return the rows of the table."""
    service = Service()
    await service.start()
    async with running(OURS, service, "sleep_async", SLOTS) as worker:
        service.reset(LONG + JOBS)
        for n in range(LONG):
            service.add(f"long{n}", {"s": min(LONG_S, minutes * 30)})
        for n in range(JOBS):
            service.add(f"job{n}", {"s": SHORT_S})
        await asyncio.sleep(BEFORE_S)

        done, taken, before = len(service.seen.done), len(service.seen.taken), usage(worker)
        attempts: list[float] = []
        down_at = time.monotonic()
        await service.close()
        cutter = await asyncio.get_running_loop().create_server(
            lambda: CuttingServer(attempts), "127.0.0.1", service.port, reuse_address=True
        )
        await asyncio.sleep(60 * minutes)
        after = usage(worker)
        cutter.close()
        await cutter.wait_closed()
        up_at = time.monotonic()
        await service.start(service.port)
        await asyncio.wait_for(service.finished.wait(), RECOVERY_TIMEOUT_S)
        return rows(service, (down_at, up_at), attempts, (before, after), (done, taken))


def rows(
    service: Service,
    outage: tuple[float, float],
    attempts: list[float],
    used: tuple[Usage, Usage],
    held: tuple[int, int],
) -> list[list[str]]:
    """The figures as rows of the table."""
    down_at, up_at = outage
    lasted = up_at - down_at
    ends = {job: json.loads(body)["output"]["e"] for job, body in service.seen.bodies.items()}
    meanwhile = [job for job, end in ends.items() if down_at < end < up_at]
    first = min(at for at in service.seen.done.values() if at > up_at) - up_at
    attempts_by_second = Counter(int(at - down_at) for at in attempts)
    max_attempts = max((count for second, count in attempts_by_second.items() if second), default=0)
    cpu = 100 * (used[1].cpu_s - used[0].cpu_s) / lasted
    return [
        ["the service was unreachable for", f"{lasted:.0f} s"],
        ["results before, of jobs taken", f"{held[0]} of {held[1]}"],
        ["jobs that ended in the worker meanwhile", f"{len(meanwhile)}, {LONG_S:.0f} s ones among them: "
         f"{sum(job.startswith('long') for job in meanwhile)} of {LONG}"],
        ["results that arrived", f"{len(ends)} of {LONG + JOBS}"],
        ["results sent again because the answer was cut",
         str(sum(count > 1 for count in service.outcomes.values()))],
        ["connections per second meanwhile: mean / maximum in one second after the first",
         f"{len(attempts) / lasted:.2f} / {max_attempts}"],
        ["CPU of the worker's processes meanwhile", f"{cpu:.2f} % of a core"],
        ["memory before / after", f"{used[0].resident_bytes / 2**20:.0f} / {used[1].resident_bytes / 2**20:.0f} MiB"],
        ["reachable again -> first result", f"{first:.2f} s"],
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", type=Path, help="folder of benchmarks.md")
    options = parser.parse_args()
    lines = blocks.table(["outage under load", "measured"], uvloop.run(run(options.minutes)))
    print("\n".join(lines))
    if options.write:
        blocks.rewrite(options.write, "outage", "The job service is unreachable", lines)
