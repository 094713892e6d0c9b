"""The circuit breaker, with a service that answers or does not."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused
from runpod_worker.worker.agent.breaker import CircuitBreaker

pytestmark = pytest.mark.usefixtures("fast_time")


class Service:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.is_down = False
        self.calls: list[float] = []

    async def __call__(self) -> str:
        self.calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        if self.is_down:
            raise LinkDown
        return "answer"


@pytest.fixture
def service() -> Service:
    return Service()


def make() -> CircuitBreaker:
    return CircuitBreaker(now=asyncio.get_running_loop().time, random=lambda: 0.1)


async def test_requests_pass_at_once_while_the_service_answers(service: Service) -> None:
    breaker = make()

    assert await breaker.call(service) == "answer"
    assert breaker.is_closed
    assert len(service.calls) == 1


async def test_many_waiting_requests_ask_no_more_often_than_one(service: Service) -> None:
    breaker = make()
    service.is_down = True
    waiting = [asyncio.create_task(breaker.call(service)) for _ in range(50)]
    await asyncio.sleep(0.05)
    under_way = len(service.calls)

    await asyncio.sleep(1.5)
    probes = len(service.calls) - under_way
    service.is_down = False
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)

    assert under_way == 50
    assert 1 <= probes <= 8
    assert answers == ["answer"] * 50
    assert breaker.is_closed


async def test_one_failure_costs_a_moment_only(service: Service) -> None:
    breaker = make()
    answers: list[Callable[[], str]] = []

    async def once_reset() -> str:
        answers.append(lambda: "")
        if len(answers) == 1:
            raise LinkDown
        return "answer"

    began = asyncio.get_running_loop().time()
    assert await breaker.call(once_reset) == "answer"
    assert asyncio.get_running_loop().time() - began < 5


async def test_only_the_request_that_a_busy_service_refused_waits(service: Service) -> None:
    breaker = make()

    async def busy() -> str:
        raise LinkBusy("429", retry_after_s=60)

    waiting = asyncio.create_task(breaker.call(busy))
    await asyncio.sleep(0.01)

    assert breaker.is_closed
    assert await breaker.call(service) == "answer"
    waiting.cancel()


async def test_a_refusal_is_an_answer(service: Service) -> None:
    breaker = make()
    breaker.record_failure(LinkDown())

    async def refused() -> str:
        raise LinkRefused("404", status=404)

    with pytest.raises(LinkRefused):
        await breaker.call(refused)
    assert breaker.is_closed


@pytest.mark.parametrize("random", [0.0, 1.0])
async def test_whatever_waits_to_be_delivered_finds_out_within_about_a_second_that_the_service_is_back(
    service: Service, random: float
) -> None:
    breaker = CircuitBreaker(now=asyncio.get_running_loop().time, random=lambda: random)
    service.is_down = True
    waiting = asyncio.create_task(breaker.call(service))
    await asyncio.sleep(5)  # an outage: the time between two probes has grown to its most

    calls = service.calls[1:]
    assert len(calls) < 5 * 5
    assert max(later - earlier for earlier, later in itertools.pairwise(calls)) < 1.6
    service.is_down = False
    await asyncio.wait_for(waiting, 2.5)


async def test_an_outcome_does_not_wait_for_the_slow_probes_of_an_idle_worker(service: Service) -> None:
    breaker = CircuitBreaker(now=asyncio.get_running_loop().time, random=lambda: 1.0)
    breaker.record_failure(LinkDown())
    for _ in range(10):
        breaker._plan_probe()
    held = asyncio.create_task(breaker.acquire())  # the take of an idle worker, first in line for five seconds
    await asyncio.sleep(0)

    assert await asyncio.wait_for(breaker.call(service), 2.5) == "answer"
    await held


async def test_a_request_that_alone_always_fails_is_repeated_ever_more_slowly(service: Service) -> None:
    breaker = make()
    pauses = []
    for tries in range(12):
        pauses.append(breaker.record_failure(LinkDown(), tries))
        await breaker.call(service)

    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * pauses[0]
