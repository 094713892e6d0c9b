"""A worker that was frozen, with its machine or by SIGSTOP, and runs again."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from runpod_worker.worker.agent.timer import FreezeWatch

FROZEN_S = 2.5


class Clocks:
    """The three clocks of a process."""

    def __init__(self) -> None:
        self.times = [100.0, 200.0, 300.0]
        self.shift = 0.0

    def wall(self) -> float:
        return time.time() + self.shift

    def watch(self, heartbeat_s: float) -> FreezeWatch:
        return FreezeWatch(heartbeat_s, [lambda: self.times[0], lambda: self.times[1], lambda: self.times[2]])

    def advance(self, monotonic: float, boot: float, wall: float) -> None:
        self.times = [time + step for time, step in zip(self.times, (monotonic, boot, wall), strict=True)]


def test_a_process_that_runs_is_not_frozen_even_if_the_clock_is_set_back() -> None:
    clocks = Clocks()
    watch = clocks.watch(10)

    for steps in (1, 1, 1), (20.9, 20.9, 20.9), (1, 1, -3600), (1, 1, 20):
        clocks.advance(*steps)
        assert watch.check() == 0


def test_both_signs_of_a_freeze_are_noticed_once() -> None:
    clocks = Clocks()
    watch = clocks.watch(10)

    for steps in (101, 101, 101), (1, 101, 101), (1, 1, 101):
        clocks.advance(*steps)
        assert watch.check() == 100
        clocks.advance(1, 1, 1)
        assert watch.check() == 0


async def test_after_a_freeze_a_heartbeat_comes_first_and_jobs_without_a_lease_stop(
    agreed: Any, start_agent: Any
) -> None:
    clocks, stopped, release = Clocks(), [], asyncio.Event()

    async def handler(job: Any) -> Any:
        try:
            await release.wait()
        except asyncio.CancelledError:
            stopped.append(job.id)
            raise
        return job.input

    worker = await start_agent(handler, slots=2, wall=clocks.wall, ping_interval_s=0.2)
    await agreed.add({"id": "lost", "input": 1, "attempt": 1}, {"id": "kept", "input": 2, "attempt": 1})
    await agreed.until(lambda: len(agreed.taken_at) == 2)
    await asyncio.sleep(0)

    before = len(agreed.requests)
    agreed.script("ping", *[b'{"leased":{"kept":1}}'] * 3)
    clocks.shift = 3600
    await worker.logged("worker.thawed")
    await agreed.until(lambda: stopped == ["lost"], "the stop")
    release.set()

    assert await agreed.result("kept") == {"output": 2}
    assert "lost" not in agreed.results()
    routes = [request.route for request in agreed.requests[before:]]
    assert routes.index("ping") < routes.index("job-done")


SLOW = """
@worker.handler
def handler(job):
    for number in range(job["input"]):
        time.sleep(0.05)
        yield number
"""


async def test_a_stopped_and_continued_worker_finishes_what_it_holds_and_takes_more(
    service: Any, start_worker: Any
) -> None:
    worker = await start_worker(SLOW, RUNPOD_PING_INTERVAL="500")
    await service.add({"id": "before", "input": 1})
    await service.result("before")
    await service.add({"id": "stream", "input": 20})
    await service.requests_to("job-stream", 3)

    for pid in (worker.pid, *children(worker.pid)):
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S)
    for pid in (worker.pid, *children(worker.pid)):
        os.kill(pid, signal.SIGCONT)

    await service.result("stream")
    await service.add({"id": "after", "input": 1})
    await service.result("after")
    assert "worker.thawed" in worker.log
    assert await worker.terminate() == 0


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*direct, *(grandchild for child in direct for grandchild in children(child))]
