"""How requests wait."""

from __future__ import annotations

import asyncio
from functools import partial
from operator import ne

import pytest

from runpod_worker.core.job import Job
from runpod_worker.service.queue.polls import Assigned, Polls, TakeRequest
from runpod_worker.service.queue.waiters import DeadlineTimer, Waiters
from runpod_worker.testing import ManualClock


async def test_notify_wakes_all_that_wait_on_the_key_and_leaves_nothing_behind():
    waiters = Waiters()
    waiting = [asyncio.create_task(waiters.wait(key, 20)) for key in ("a", "a", "b")]
    await asyncio.sleep(0)

    waiters.notify("a", 1)
    assert [await waiting[0], await waiting[1]] == [1, 1]
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)

    assert await waiters.wait("c", 0.001) is None
    assert len(waiters) == 0


async def test_closed_waiters_wake_all():
    waiters = Waiters()
    waiting = asyncio.create_task(waiters.wait("a", 20))
    await asyncio.sleep(0)

    waiters.close()

    assert await waiting is None
    assert await waiters.wait("a", 20) is None


async def test_takes_are_popped_first_come_first_served_and_dead_ones_are_skipped():
    polls = Polls()
    requests = [TakeRequest(endpoint="e", worker=str(n), is_alive=partial(ne, n, 1)) for n in range(3)]
    waiting = [asyncio.create_task(polls.wait("e", 20, request)) for request in requests]
    await asyncio.sleep(0)

    first, third = polls.pop("e"), polls.pop("e")

    assert (first.request.worker, third.request.worker) == ("0", "2")
    assert polls.pop("e") is None
    for poll in (first, third):
        poll.resolve([])
    assert await asyncio.gather(*waiting) == [[], None, []]
    assert len(polls) == 0


async def test_a_popped_take_outlives_its_time_and_is_answered_by_whoever_popped_it():
    polls = Polls()
    waiting = asyncio.create_task(polls.wait("e", 0.01, TakeRequest(endpoint="e", worker="w")))
    await asyncio.sleep(0)
    poll = polls.pop("e")
    await asyncio.sleep(0.03)
    polls.close()
    assert not waiting.done()

    assigned = [Assigned(Job(id="j", endpoint="e", created_at=1, queued_at=1))]
    poll.resolve(assigned)

    assert await waiting == assigned


async def test_released_takes_are_answered_with_nothing():
    polls = Polls()
    requests = [TakeRequest(endpoint="e", worker="w", id=take_id) for take_id in ("a", "b")]
    waiting = [asyncio.create_task(polls.wait("e", 20, request)) for request in requests]
    await asyncio.sleep(0)

    polls.release("e", "w", {"a"})

    assert await waiting[0] is None
    assert polls.pop("e").request.id == "b"
    waiting[1].cancel()


async def test_a_timer_fires_at_the_earliest_time_it_was_armed_for():
    loop = asyncio.get_running_loop()
    timer = DeadlineTimer(loop.time)
    start = loop.time()

    timer.arm(start + 100)
    timer.arm(start + 0.02)
    timer.arm(start + 50)
    timer.arm(None)
    late_s = await asyncio.wait_for(timer.wait(), 20)

    assert loop.time() - start >= 0.015
    assert 0 <= late_s <= loop.time() - start


async def test_a_timer_tells_how_late_it_fired_even_if_it_is_armed_again_first():
    clock = ManualClock()
    timer = DeadlineTimer(clock)
    with clock.driving():
        timer.arm(clock() + 1)
        await clock.advance(6)
        assert await timer.wait() == pytest.approx(0)

        timer.arm(clock() + 1)
        clock.freeze(6)
        assert await timer.wait() == pytest.approx(5)

        timer.arm(clock() + 10)
        clock.freeze(30)
        timer.arm(clock() - 25)
        await clock.advance(1)
        assert await timer.wait() == pytest.approx(20)
