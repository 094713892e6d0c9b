"""Patience with a service that is away."""

import asyncio
from collections.abc import Callable

import pytest

from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused
from runpod_worker.worker.gate import Gate


class Service:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.away = False
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        if self.away:
            raise LinkDown
        return "answer"


@pytest.fixture
def service() -> Service:
    return Service()


def make() -> Gate:
    return Gate(now=asyncio.get_running_loop().time, random=lambda: 0.1)


async def test_requests_pass_at_once_while_the_service_answers(service: Service) -> None:
    gate = make()

    assert await gate.until_answered(service) == "answer"
    assert gate.open
    assert len(service.asked) == 1


async def test_many_waiting_requests_ask_no_more_often_than_one(service: Service) -> None:
    gate = make()
    service.away = True
    waiting = [asyncio.create_task(gate.until_answered(service)) for _ in range(50)]
    await asyncio.sleep(0.05)
    under_way = len(service.asked)

    await asyncio.sleep(1.5)
    probes = len(service.asked) - under_way
    service.away = False
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)

    assert under_way == 50
    assert 1 <= probes <= 8
    assert answers == ["answer"] * 50
    assert gate.open


async def test_one_failure_costs_a_moment_only(service: Service) -> None:
    gate = make()
    answers: list[Callable[[], str]] = []

    async def once_reset() -> str:
        answers.append(lambda: "")
        if len(answers) == 1:
            raise LinkDown
        return "answer"

    began = asyncio.get_running_loop().time()
    assert await gate.until_answered(once_reset) == "answer"
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_busy_service_is_left_alone_by_whom_it_told_only(service: Service) -> None:
    gate = make()

    async def busy() -> str:
        raise LinkBusy("429", retry_after_s=60)

    told = asyncio.create_task(gate.until_answered(busy))
    await asyncio.sleep(0.01)

    assert gate.open
    assert await gate.until_answered(service) == "answer"
    told.cancel()


async def test_a_refusal_is_an_answer(service: Service) -> None:
    gate = make()
    gate.failed(LinkDown())

    async def refused() -> str:
        raise LinkRefused("404", status=404)

    with pytest.raises(LinkRefused):
        await gate.until_answered(refused)
    assert gate.open
