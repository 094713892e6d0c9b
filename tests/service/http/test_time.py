"""Leases, time-outs, ttl and retention, by a clock that the test moves."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Status
from runpod_worker.service.http import wire
from runpod_worker.service.queue.polls import TakeRequest
from runpod_worker.service.queue.reports import Reporter


async def submit(service, **fields):
    body = msgspec.json.encode({"input": 1, **fields})
    return await service.submit("ep", wire.parse_submission(body, service.settings))


async def take(service, worker="a", **more):
    assigned = await service.takes.take(TakeRequest(endpoint="ep", worker=worker, **more), 0)
    return assigned[0].job if assigned else None


def holder(worker="a", attempt=None):
    return Reporter(endpoint="ep", worker=worker, attempt=attempt)


async def test_a_lost_job_is_assigned_once_more_and_then_fails_in_the_platforms_words(service, clock):
    job = await submit(service)
    await take(service)

    clock.time += 40
    await service.sweep.once()
    assert (await service.get("ep", job.id)).status is Status.IN_PROGRESS, "at its end the lease still holds"
    clock.time += 0.001
    await service.sweep.once()
    assert (await service.get("ep", job.id)).status is Status.IN_QUEUE
    assert (await take(service, "b")).attempt == 2
    clock.time += 41
    await service.sweep.once()

    ended = await service.get("ep", job.id)
    assert (ended.status, ended.error, ended.retries) == (Status.FAILED, "job timed out after 1 retries", 1)


async def test_a_lost_job_goes_to_a_worker_that_waits(service, clock):
    job = await submit(service)
    await take(service)
    waiting = asyncio.create_task(service.takes.take(TakeRequest(endpoint="ep", worker="b"), 20))
    await asyncio.sleep(0)

    clock.time += 41
    await service.sweep.once()

    assert [each.job.id for each in await waiting] == [job.id]


async def test_pings_keep_a_lease_but_never_longer_than_the_execution_timeout(service, clock):
    job = await submit(service, policy={"executionTimeout": 60_000})
    await take(service)

    for _ in range(5):
        clock.time += 11
        await service.reports.heartbeat(holder(), [job.id, "unknown"])
        await service.sweep.once()
    assert (await service.get("ep", job.id)).status is Status.IN_PROGRESS
    clock.time += 11
    await service.reports.heartbeat(holder(), [job.id])
    await service.sweep.once()

    ended = await service.get("ep", job.id)
    assert (ended.status, ended.error) == (Status.FAILED, "executionTimeout exceeded")


async def test_pings_of_another_worker_keep_no_lease(service, clock):
    job = await submit(service)
    await take(service)

    clock.time += 30
    await service.reports.heartbeat(holder("b"), [job.id])
    clock.time += 11
    await service.sweep.once()

    assert (await service.get("ep", job.id)).status is Status.IN_QUEUE


async def test_chunks_and_progress_keep_a_lease(service, clock):
    job = await submit(service)
    await take(service)

    clock.time += 30
    await service.reports.add_chunks(holder(), job.id, [b"1"], None)
    clock.time += 30
    await service.reports.progress(holder(), job.id, wire.parse_report(b'{"status":"IN_PROGRESS","output":1}'))
    clock.time += 30
    await service.sweep.once()

    assert (await service.get("ep", job.id)).status is Status.IN_PROGRESS


async def test_execution_timeout_stops_the_worker_and_waits_if_it_confirms(service, clock):
    job = await submit(service, policy={"executionTimeout": 5_000})
    service.workers.touch("ep", "a")
    await take(service, confirms=True)

    clock.time += 5
    await service.sweep.once()
    assert (await service.get("ep", job.id)).status is Status.IN_PROGRESS
    assert list(await service.workers.wait_stops("ep", "a", 0)) == [job.id]
    await service.reports.finish(holder(), job.id, wire.parse_report(b'{"stopped":true}'))

    ended = await service.get("ep", job.id)
    assert (ended.status, ended.error) == (Status.FAILED, "executionTimeout exceeded")


async def test_a_worker_that_never_confirms_a_stop_cannot_keep_the_job_by_pinging(service, clock):
    job = await submit(service)
    await take(service, confirms=True)
    cancelling = asyncio.create_task(service.cancel("ep", job.id))
    await asyncio.sleep(0)

    clock.time += 30
    await service.reports.heartbeat(holder(), [job.id])
    clock.time += 11
    await service.sweep.once()

    assert (await cancelling).status is Status.CANCELLED


async def test_ttl_counts_from_submission_and_shows_as_timed_out(service, clock):
    queued = await submit(service, policy={"ttl": 10_000})
    running = await submit(service, policy={"ttl": 10_000, "lowPriority": False})
    assert (await take(service)).id == queued.id

    clock.time += 10
    await service.sweep.once()

    assert [(await service.get("ep", job.id)).status for job in (queued, running)] == [Status.TIMED_OUT] * 2
    assert (await service.retry("ep", queued.id)).status is Status.IN_QUEUE


async def test_a_caller_may_set_how_much_longer_a_job_lives(service, clock):
    job = await submit(service)

    clock.time += 5
    await service.set_ttl("ep", job.id, 10_000)
    clock.time += 9.9
    await service.sweep.once()
    assert (await service.get("ep", job.id)).status is Status.IN_QUEUE
    clock.time += 0.2
    await service.sweep.once()

    assert (await service.get("ep", job.id)).status is Status.TIMED_OUT


@pytest.mark.parametrize(("sync", "kept_s"), [(False, 1800), (True, 60)])
async def test_an_ended_job_can_be_read_until_its_retention_ends(service, clock, sync, kept_s):
    job = await service.submit("ep", wire.parse_submission(b'{"input": 1}', service.settings), sync=sync)
    await take(service)
    await service.reports.finish(holder(), job.id, wire.parse_report(b'{"output": 1}'))

    clock.time += kept_s
    assert (await service.get("ep", job.id)).status is Status.COMPLETED
    clock.time += 1
    with pytest.raises(JobNotFound):
        await service.get("ep", job.id)
    await service.sweep.once()

    assert service.jobs.get(job.id) is None


async def test_a_restarted_service_gives_its_workers_time_to_report(restart, clock):
    service = await restart()
    job = await submit(service)
    await take(service)
    clock.time += 3600  # the service is down; executionTimeout passes as well

    again = await restart()
    await again.sweep.start()
    await again.sweep.once()
    assert (await again.get("ep", job.id)).status is Status.IN_PROGRESS
    await again.reports.finish(holder(), job.id, wire.parse_report(b'{"output": 1}'))

    assert (await again.get("ep", job.id)).status is Status.COMPLETED


async def test_a_worker_that_stays_silent_after_a_restart_loses_its_jobs(restart, clock):
    service = await restart()
    job = await submit(service)
    await take(service)
    clock.time += 3600

    again = await restart()
    await again.sweep.start()
    clock.time += 41
    await again.sweep.once()

    ended = await again.get("ep", job.id)
    assert (ended.status, ended.error) == (Status.FAILED, "executionTimeout exceeded")


async def test_the_sweep_wakes_by_itself_when_something_is_due(serve, workers):
    running = await serve(lease_s=0.05)
    ours = workers[1](running.api)
    job_id = await running.api.run()
    assert (await ours.take())["attempt"] == 1

    again = await workers[1](running.api, "w-2").take()

    assert (again["id"], again["attempt"]) == (job_id, 2)
    assert (await running.api.get(f"/status-sync/{job_id}")).json["error"] == "job timed out after 1 retries"


async def test_a_stop_that_was_pending_at_a_restart_reaches_the_worker(restart, clock):
    service = await restart()
    job = await submit(service)
    await take(service, confirms=True)
    cancelling = asyncio.create_task(service.cancel("ep", job.id))
    await asyncio.sleep(0)
    service.drain()
    await cancelling

    again = await restart()

    assert list(await again.workers.wait_stops("ep", "a", 0)) == [job.id]


async def test_a_worker_that_takes_a_lost_job_again_need_not_stop_it(service, clock):
    await submit(service)
    service.workers.touch("ep", "a")
    await take(service)
    clock.time += 41
    await service.sweep.once()
    assert (await take(service)).attempt == 2

    assert list(await service.workers.wait_stops("ep", "a", 0)) == []
