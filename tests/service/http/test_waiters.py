"""How requests wait."""

from __future__ import annotations

import asyncio

import pytest

from runpod_worker.service.queue.polls import Ask, Polls
from runpod_worker.service.queue.waiters import Alarm, Bells, started, together


async def test_started_runs_up_to_the_first_await_at_once_and_the_rest_when_awaited():
    seen = []
    gate = asyncio.get_running_loop().create_future()

    async def work():
        seen.append("begun")
        seen.append(await gate)
        return "end"

    one = started(work())
    assert seen == ["begun"]
    gate.set_result("woken")

    assert await one == "end"
    assert seen == ["begun", "woken"]


async def test_started_keeps_an_early_error_for_whoever_awaits():
    async def broken():
        raise ValueError("early")

    one = started(broken())

    with pytest.raises(ValueError, match="early"):
        await one


async def test_started_passes_cancellation_to_the_coroutine():
    seen = []

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def outer():
        await started(work())

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert seen == ["cancelled"]


async def test_together_waits_for_all_before_it_raises():
    ended = []

    async def work(n):
        await asyncio.sleep(0)
        ended.append(n)
        if n == 1:
            raise ValueError(n)
        return n

    with pytest.raises(ValueError, match="1"):
        await together([work(n) for n in range(3)])
    assert ended == [0, 1, 2]
    assert await together([work(n) for n in (0, 2)]) == [0, 2]


async def test_a_bell_wakes_all_who_wait_on_its_key_and_leaves_nothing_behind():
    bells = Bells()
    waiting = [asyncio.create_task(bells.wait(key, 20)) for key in ("a", "a", "b")]
    await asyncio.sleep(0)

    bells.ring("a", 1)
    assert [await waiting[0], await waiting[1]] == [1, 1]
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)

    assert await bells.wait("c", 0.001) is None
    assert len(bells) == 0


async def test_silenced_bells_let_everyone_go():
    bells = Bells()
    waiting = asyncio.create_task(bells.wait("a", 20))
    await asyncio.sleep(0)

    bells.silence()

    assert await waiting is None
    assert await bells.wait("a", 20) is None


async def test_polls_are_claimed_first_come_first_served_and_dead_ones_are_skipped():
    polls = Polls()
    asks = [Ask(endpoint="e", worker=str(n), alive=lambda n=n: n != 1) for n in range(3)]
    waiting = [asyncio.create_task(polls.wait(ask, 20)) for ask in asks]
    await asyncio.sleep(0)

    first, third = polls.claim("e"), polls.claim("e")

    assert (first.ask.worker, third.ask.worker) == ("0", "2")
    assert polls.claim("e") is None
    for poll in (first, third):
        poll.give(None)
    await asyncio.gather(*waiting)
    assert len(polls) == 0


async def test_an_unclaimed_poll_is_first_in_line_again():
    polls = Polls()
    waiting = [asyncio.create_task(polls.wait(Ask(endpoint="e", worker=str(n)), 20)) for n in range(2)]
    await asyncio.sleep(0)

    polls.unclaim(polls.claim("e"))

    assert polls.claim("e").ask.worker == "0"
    for task in waiting:
        task.cancel()


async def test_a_claimed_poll_outlives_its_time_until_it_is_given_or_unclaimed():
    polls = Polls()
    waiting = asyncio.create_task(polls.wait(Ask(endpoint="e", worker="w"), 20))
    await asyncio.sleep(0)
    poll = polls.claim("e")

    poll.expire()
    assert not poll.future.done()
    polls.unclaim(poll)

    assert await waiting == []


async def test_an_alarm_goes_off_at_the_earliest_time_it_was_armed_for():
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop.time)
    start = loop.time()

    alarm.arm(start + 100)
    alarm.arm(start + 0.02)
    alarm.arm(start + 50)
    alarm.arm(None)
    await asyncio.wait_for(alarm.wait(), 20)

    assert loop.time() - start >= 0.015
