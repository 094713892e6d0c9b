"""Many at once: idle polls, waiting callers, jobs. Nothing may leak, and nobody is woken for nothing."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from runpod_worker.core.job import Status
from runpod_worker.service.http import wire
from runpod_worker.service.queue.polls import TakeRequest
from runpod_worker.service.queue.reports import Reporter


async def until(condition) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.slow
async def test_one_job_wakes_exactly_one_of_a_thousand_idle_workers(running):
    polls = running.service.takes.polls
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        taken: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

        async def idle(name: str) -> None:
            async with session.get(f"{running.api.base}/job-take/{name}?gpu=A") as reply:
                if reply.status == 200:
                    taken.put_nowait(((await reply.json())["id"], time.perf_counter()))

        tasks = [asyncio.create_task(idle(f"w-{n}")) for n in range(1000)]
        await until(lambda: len(polls) == 1000)

        for left in range(999, 979, -1):
            job_id = await running.api.run()
            assert (await asyncio.wait_for(taken.get(), 20))[0] == job_id
            assert len(polls) == left
        running.server.queue.drain()
        await asyncio.gather(*tasks)

    assert len(polls) == 0


async def test_a_thousand_callers_and_workers_leave_nothing_behind(service):
    async def call(n: int) -> None:
        job = await service.submit("ep", wire.parse_submission(b'{"input": 1}', service.settings), sync=n % 2 == 0)
        assert (await service.wait_end(job.id, 20)).job.status is Status.COMPLETED

    async def work(name: str) -> None:
        for _ in range(20):
            (assigned,) = await service.takes.take(TakeRequest(endpoint="ep", worker=name), 20)
            await service.reports.finish(
                Reporter(endpoint="ep", worker=name), assigned.job.id, wire.parse_report(b'{"output": 1}')
            )

    await asyncio.gather(*[call(n) for n in range(1000)], *[work(f"w-{n}") for n in range(50)])

    assert len(service.takes.polls) == len(service.jobs.ended) == len(service.jobs.moved) == 0
    assert service.jobs.index.counts("ep").completed == 1000


async def test_jobs_of_one_endpoint_wake_no_worker_of_another(running, workers):
    other = asyncio.create_task(workers[0](running.endpoint("other")).take())
    await until(lambda: len(running.service.takes.polls) == 1)

    await running.api.run()

    assert len(running.service.takes.polls) == 1
    await running.endpoint("other").run()
    assert await other is not None


async def test_purging_a_large_queue(service):
    submission = wire.parse_submission(b'{"input": 1}', service.settings)
    for _ in range(3000):
        await service.submit("ep", submission)

    assert await service.purge("ep") == 3000
    assert service.jobs.index.counts("ep").in_queue == 0
