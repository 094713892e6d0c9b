"""Steps of the wall clock, and a service that was frozen: neither takes a job from a worker that is alive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runpod_worker.core.dispatch.values import AttemptRef, TakeRequest
from runpod_worker.service.server import SteadyClock
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.testing import InProcessLink, InProcessService, ManualClock


@pytest.fixture
async def clock() -> AsyncIterator[ManualClock]:
    clock = ManualClock()
    with clock.driving():
        yield clock


async def held_job(service: InProcessService, **policy: int) -> tuple[InProcessLink, str]:
    link = InProcessLink(service)
    job_id = await service.submit(1, policy=policy)
    [job] = await link.take(TakeRequest(1, "t"), busy=False)
    assert job.id == job_id
    return link, job_id


def steady(clock: ManualClock) -> SteadyClock:
    return SteadyClock(clock, clock.monotonic)


@pytest.mark.parametrize("step_s", [45.0, 3600.0, -45.0, -3600.0])
async def test_a_clock_step_takes_no_job_and_leases_end_as_without_it(clock: ManualClock, step_s: float) -> None:
    async with InProcessService(now=steady(clock)) as service:
        link, job_id = await held_job(service, executionTimeout=30_000_000, ttl=30_000_000)

        clock.step(step_s)
        await clock.advance(30)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        await link.heartbeat([job_id])
        await clock.advance(39)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        await clock.advance(2)
        assert (await service.view(job_id))["status"] == "IN_QUEUE"


async def test_a_clock_step_changes_no_timeout(clock: ManualClock) -> None:
    async with InProcessService(now=steady(clock)) as service:
        link, job_id = await held_job(service, executionTimeout=20_000)

        clock.step(-3600)
        await clock.advance(19)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        await clock.advance(2)
        assert await link.poll_stops() != ()


@pytest.mark.parametrize("step_s", [-3600.0, 45.0])
async def test_after_a_step_while_the_service_was_down_leases_are_as_long_as_ever(
    clock: ManualClock, tmp_path: Path, step_s: float
) -> None:
    settings = ServiceSettings(data=tmp_path)
    async with InProcessService(settings, now=steady(clock)) as service:
        _, job_id = await held_job(service, ttl=86_400_000)
    clock.step(step_s)

    async with InProcessService(settings, now=steady(clock)) as service:
        await clock.advance(39)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        await clock.advance(2)
        assert (await service.view(job_id))["status"] == "IN_QUEUE"
        [job] = service.server.queue.jobs.index.head("ep", 1)
        assert job.created_at <= clock(), "its ttl would last hours longer"


async def test_a_frozen_service_renews_every_lease_once(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    async with InProcessService(now=steady(clock)) as service:
        link, job_id = await held_job(service, executionTimeout=30_000_000)
        await clock.advance(1)

        clock.freeze(3600)
        await clock.advance(39)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        delays = [vars(record) for record in caplog.records if record.message == "service.delayed"]
        assert [delay["leases"] for delay in delays] == [1]
        await link.heartbeat([job_id])
        await clock.advance(39)
        assert (await service.view(job_id))["status"] == "IN_PROGRESS"
        await clock.advance(2)
        assert (await service.view(job_id))["status"] == "IN_QUEUE", "a worker that stays silent still loses its job"


async def test_a_result_that_waited_for_a_frozen_service_is_accepted_after_the_timeout(clock: ManualClock) -> None:
    async with InProcessService(now=steady(clock)) as service:
        link, job_id = await held_job(service, executionTimeout=60_000)

        clock.freeze(3600)
        await clock.advance(1)
        await link.finish(AttemptRef(job_id, None), b'{"output": 1}')

        assert (await service.view(job_id))["status"] == "COMPLETED"
