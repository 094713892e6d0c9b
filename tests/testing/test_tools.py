"""runpod_worker.testing: the clock, the signals, the service in this process."""

from __future__ import annotations

import asyncio
import threading

import pytest

from runpod_worker.core.dispatch.values import TakeRequest
from runpod_worker.core.errors import LinkDown, ServiceRefusal
from runpod_worker.core.testsignal import TestSignal
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.testing import InProcessLink, InProcessService, InProcessTransport, ManualClock, listening
from runpod_worker.testing.service import ORIGIN

WAIT_S = 20.0


async def test_a_manual_clock_stands_until_it_is_moved() -> None:
    clock = ManualClock(100.0)

    assert (clock(), clock.monotonic()) == (100.0, 0.0)
    await clock.advance(2.5)
    assert (clock(), clock.monotonic()) == (102.5, 2.5)
    with pytest.raises(ValueError, match="seconds"):
        await clock.advance(-1)


async def test_advancing_wakes_what_waits_in_the_order_of_its_times() -> None:
    clock, woken = ManualClock(), []

    async def wait(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    with clock.driving():
        waits = [asyncio.create_task(wait(seconds)) for seconds in (3600, 60, 7200)]
        await clock.advance(59)
        assert woken == []
        await clock.advance(3541)
        assert woken == [60, 3600]
        await clock.advance(3600)
        await asyncio.gather(*waits)


async def test_time_outs_follow_the_clock() -> None:
    clock = ManualClock()

    async def never() -> None:
        async with asyncio.timeout(1000):
            await asyncio.Event().wait()

    with clock.driving():
        waiting = asyncio.create_task(never())
        await clock.advance(1001)
        with pytest.raises(TimeoutError):
            await waiting


async def test_the_service_lives_by_the_clock() -> None:
    clock = ManualClock()
    with clock.driving():
        async with InProcessService(now=clock) as service:
            link = InProcessLink(service)
            job_id = await service.submit(1)
            await link.take(TakeRequest(1, "t"), busy=False)
            await clock.advance(41)
            assert (await service.view(job_id))["status"] == "IN_QUEUE"
            await link.take(TakeRequest(1, "u"), busy=False)
            await clock.advance(41)
            assert (await service.view(job_id))["error"] == "job timed out after 1 retries"
            await link.close()


async def test_a_signal_nobody_listens_to_does_nothing() -> None:
    signal: TestSignal[int] = TestSignal()

    signal.send(1)

    with listening(signal) as sent:
        signal.send(2)
        threading.Thread(target=signal.send, args=(3,)).start()
        assert [await sent.get(), await sent.get()] == [2, 3]
        with pytest.raises(RuntimeError, match="another test"), listening(signal):
            raise AssertionError
    signal.send(4)


async def test_a_caller_that_gives_up_is_told_that_the_service_is_down() -> None:
    async with InProcessService() as service:
        transport = InProcessTransport(service)

        with pytest.raises(LinkDown, match="no reply within"):
            await transport.send("GET", f"{ORIGIN}/v2/ep/job-take/w", {}, None, 0.01)

        await transport.close()


async def test_a_refused_submission_is_raised() -> None:
    async with InProcessService(ServiceSettings(max_backlog_jobs=0)) as service:
        with pytest.raises(ServiceRefusal, match="429"):
            await service.submit(1)


async def test_a_file_and_a_stream_are_read_whole(tmp_path) -> None:
    async with InProcessService(ServiceSettings(data=tmp_path, keepalive_s=0.01)) as service:
        reply = await service.request("POST", "/runsync?wait=1000", {"input": 1})
        assert reply.json["status"] == "IN_QUEUE"
        assert reply.headers["content-type"] == "application/json"

        path = f"/files/{reply.json['id']}/{'t' * 22}/a.txt"
        assert (await service.request("PUT", path, b"content", {"Content-Type": "text/plain"})).status == 200
        assert (await service.request("GET", path)).body == b"content"


async def test_each_timer_of_a_driven_loop_fires_at_its_own_time_unless_the_clock_was_frozen() -> None:
    clock, fired = ManualClock(), []

    async def tick() -> None:
        while True:
            await asyncio.sleep(10)
            fired.append(clock.monotonic())

    with clock.driving():
        ticking = asyncio.create_task(tick())
        await clock.advance(35)
        assert fired == pytest.approx([10, 20, 30])
        clock.freeze(100)
        await clock.advance(1)
        assert fired[3:] == pytest.approx([135])
        ticking.cancel()


async def test_a_step_moves_the_wall_clock_only() -> None:
    clock = ManualClock(100.0)

    clock.step(-45)

    assert (clock(), clock.monotonic()) == (55.0, 0.0)
