"""`python -m benchmarks.outage [--minutes 10] [--write docs]`: the job service goes away under load, and comes back.

Eight slots work on 50 ms jobs, four more on long ones. Then every connection is cut, for as long as was said, and
whoever connects is counted and cut off. Shown: what arrived, how often the worker asked, and what it did meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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
PATIENCE_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")


class Service(FakeService):
    """Counts how often each outcome comes, and takes back what a cut request carried."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(delay=delay, extensions=True)
        self.outcomes: Counter[str] = Counter()
        self._handed: dict[str, list[tuple[str, bytes]]] = {}
        self._token = ""

    def _handle(self, request: Request) -> Response | Awaitable[Response]:
        self._token = request.header(b"x-take-id") or ""
        if "/job-return/" in request.path:
            self._take_back(json.loads(bytes(request.body)))
        elif "/job-done/" in request.path:
            self.outcomes[unquote(request.path.rpartition("/")[2])] += 1
        return super()._handle(request)

    async def _held_take(self, most: int, batch: bool, agreed: bool) -> Response:
        token = self._token
        if not await self._hold(self.polls):
            return Response(204)
        self._token = token
        return self._jobs(most, batch, agreed)

    def _pop(self, most: int, *, attempt: bool) -> list[bytes]:
        self._handed[self._token] = [self.queue[n] for n in range(min(most, len(self.queue)))]
        return super()._pop(most, attempt=attempt)

    def _take_back(self, said: dict[str, list[object]]) -> None:
        named = {str(one["id"]) for one in said["jobs"] if isinstance(one, dict)}
        for token in reversed(list(self._handed)):  # a job that was handed over twice goes back once: the last time
            back = [job for job in self._handed[token] if token in said["takes"] or job[0] in named]
            self._handed[token] = [job for job in self._handed[token] if job not in back]
            named -= {job_id for job_id, _ in back}
            for job in back:
                if job[0] not in self.seen.done:
                    self.add_raw(*job)


class Silence(asyncio.Protocol):
    """Counts who connects, and cuts them off."""

    def __init__(self, seen: list[float]) -> None:
        self._seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._seen.append(time.monotonic())
        transport.abort()  # type: ignore[attr-defined]  # a stream's transport has it


@dataclass(frozen=True)
class Usage:
    """Of all processes of a worker."""

    cpu_s: float
    resident: int


def usage(worker: Running) -> Usage:
    """What the worker and what it started have used so far."""
    ticks = pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == worker.process.pid:
            ticks += int(fields[11]) + int(fields[12])
            pages += int(fields[21])
    return Usage(ticks / TICKS, pages * os.sysconf("SC_PAGE_SIZE"))


async def run(minutes: float) -> list[list[str]]:
    """The rows of the table."""
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
        asked: list[float] = []
        down_at = time.monotonic()
        await service.close()
        silence = await asyncio.get_running_loop().create_server(
            lambda: Silence(asked), "127.0.0.1", service.port, reuse_address=True
        )
        await asyncio.sleep(60 * minutes)
        after = usage(worker)
        silence.close()
        await silence.wait_closed()
        up_at = time.monotonic()
        await service.start(service.port)
        await asyncio.wait_for(service.finished.wait(), PATIENCE_S)
        return rows(service, (down_at, up_at), asked, (before, after), (done, taken))


def rows(
    service: Service, away: tuple[float, float], asked: list[float], used: tuple[Usage, Usage], held: tuple[int, int]
) -> list[list[str]]:
    """The figures in words."""
    down_at, up_at = away
    lasted = up_at - down_at
    ends = {job: json.loads(body)["output"]["e"] for job, body in service.seen.bodies.items()}
    meanwhile = [job for job, end in ends.items() if down_at < end < up_at]
    first = min(at for at in service.seen.done.values() if at > up_at) - up_at
    second_by_second = Counter(int(at - down_at) for at in asked)
    cpu = 100 * (used[1].cpu_s - used[0].cpu_s) / lasted
    return [
        ["the service was away", f"{lasted:.0f} s"],
        ["results before, of jobs handed over", f"{held[0]} of {held[1]}"],
        ["jobs that ended in the worker meanwhile", f"{len(meanwhile)}, {LONG_S:.0f} s ones among them: "
         f"{sum(job.startswith('long') for job in meanwhile)} of {LONG}"],
        ["results that arrived in the end", f"{len(ends)} of {LONG + JOBS}"],
        ["results sent again because the cut took the answer",
         str(sum(count > 1 for count in service.outcomes.values()))],
        ["requests a second while away: mean / most in one second after the first",
         f"{len(asked) / lasted:.2f} / {max((n for s, n in second_by_second.items() if s), default=0)}"],
        ["CPU of the worker's processes while away", f"{cpu:.2f} % of a core"],
        ["memory before / after", f"{used[0].resident / 2**20:.0f} / {used[1].resident / 2**20:.0f} MiB"],
        ["back -> first result", f"{first:.2f} s"],
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--write", type=Path, help="folder of benchmarks.md")
    options = parser.parse_args()
    lines = blocks.table(["outage under load", "measured"], uvloop.run(run(options.minutes)))
    print("\n".join(lines))
    if options.write:
        blocks.rewrite(options.write, "outage", "The job service goes away", lines)
