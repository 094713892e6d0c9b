"""What every link promises: one suite over the in-process link, and over HTTP to the real service on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runpod_worker.config import worker_settings
from runpod_worker.core.dispatch.values import AttemptRef, TakeRequest
from runpod_worker.core.errors import LinkDown, LinkRefused
from runpod_worker.core.protocol import EXTENSIONS
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.testing import InProcessLink, InProcessService, ManualClock
from runpod_worker.worker.link.http import HttpLink
from runpod_worker.worker.link.transport import HttpTransport

WAIT_S = 20.0
MakeLink = Callable[..., HttpLink]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["in-process", "http"])
async def over_http(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "http")


@pytest.fixture
async def service(over_http: bool, clock: ManualClock, tmp_path: Path) -> AsyncIterator[InProcessService]:
    settings = ServiceSettings(port=0, data=tmp_path, take_poll_timeout_s=0.05, max_result_bytes=1000)
    service = InProcessService(settings, now=clock)
    if over_http:
        service.server.start = _listening(service.server.start)  # type: ignore[method-assign]
    async with asyncio.timeout(WAIT_S), service:
        yield service


def _listening(start: Callable[..., Any]) -> Callable[..., Any]:
    async def started(*, listen: bool = True) -> None:
        await start(listen=True)

    return started


@pytest.fixture
async def make_link(service: InProcessService, over_http: bool) -> AsyncIterator[MakeLink]:
    async with AsyncExitStack() as stack:

        def make(worker_id: str = "w-1") -> HttpLink:
            link: HttpLink = InProcessLink(service, worker_id)
            if over_http:
                url = f"{service.server.url}/v2/{service.endpoint}"
                link = HttpLink(worker_settings({"url": url, "worker_id": worker_id}, env={}), HttpTransport())
            stack.push_async_callback(link.close)
            return link

        yield make


@pytest.fixture
async def link(make_link: MakeLink) -> HttpLink:
    link = make_link()
    await link.heartbeat([])
    return link


def request(number: int = 1, most: int = 1) -> TakeRequest:
    return TakeRequest(most, f"take-{number}")


def ref(job: Any) -> AttemptRef:
    return AttemptRef(job.id, job.attempt)


async def test_the_service_offers_its_extensions_in_a_heartbeat(make_link: MakeLink) -> None:
    link = make_link()
    assert link.extensions == frozenset()

    await link.heartbeat([])

    assert link.extensions == EXTENSIONS
    assert link.files_url is not None


async def test_a_heartbeat_tells_which_leases_are_left(
    service: InProcessService, link: HttpLink, clock: ManualClock
) -> None:
    for number in range(2):
        await service.submit(number)
    lost, kept = await link.take(request(1, 2), busy=False)
    await link.release([], [ref(lost)])

    assert await link.heartbeat([lost.id, kept.id]) == {kept.id}
    assert await link.heartbeat([]) == frozenset()


async def test_a_worker_with_2000_jobs_keeps_every_lease(
    service: InProcessService, link: HttpLink, clock: ManualClock
) -> None:
    for number in range(2000):
        await service.submit(number)
    held = [job.id for take in range(20) for job in await link.take(request(take, 100), busy=True)]
    assert len(held) == 2000

    for _ in range(2):
        await clock.advance(service.server.queue.settings.lease_s - 1)
        await link.heartbeat(held)
        await service.server.queue.sweep.once()

    counts = (await service.request("GET", "/health")).json["jobs"]
    assert (counts["inProgress"], counts["inQueue"], counts["retried"]) == (2000, 0, 0)


async def test_a_take_without_jobs_is_empty(link: HttpLink) -> None:
    assert list(await link.take(request(), busy=False)) == []


async def test_a_take_brings_as_many_jobs_as_it_asks_for(service: InProcessService, link: HttpLink) -> None:
    submitted = [await service.submit({"n": number}) for number in range(3)]

    first = await link.take(request(1, most=2), busy=False)
    second = await link.take(request(2), busy=True)

    assert [job.id for job in (*first, *second)] == submitted
    assert [job.attempt for job in first] == [1, 1]


async def test_a_job_submitted_during_a_take_ends_the_take(service: InProcessService, link: HttpLink) -> None:
    taking = asyncio.create_task(link.take(request(), busy=False))
    while (await service.request("GET", "/health")).json["workers"]["idle"] == 0:
        await asyncio.sleep(0)

    job_id = await service.submit(1)

    assert [job.id for job in await taking] == [job_id]


async def test_a_cancelled_take_loses_no_job(service: InProcessService, make_link: MakeLink, link: HttpLink) -> None:
    taking = asyncio.create_task(link.take(request(), busy=False))
    while (await service.request("GET", "/health")).json["workers"]["idle"] == 0:
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)

    job_id = await service.submit(1)

    other, taken = make_link("w-2"), []
    while not taken:
        taken = [job.id for job in await other.take(request(), busy=False)]
    assert taken == [job_id]


async def test_a_finished_job_is_completed(service: InProcessService, link: HttpLink) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)

    reply = await link.finish(ref(job), b'{"output":{"a":1}}')

    assert (reply.stale, list(reply.jobs)) == (False, [])
    view = await service.view(job_id)
    assert (view["status"], view["output"], view["workerId"]) == ("COMPLETED", {"a": 1}, "w-1")


async def test_a_report_of_another_attempt_is_stale(service: InProcessService, link: HttpLink) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)

    for attempt in (AttemptRef(job.id, 2), AttemptRef("unknown", 1)):
        assert (await link.finish(attempt, b'{"output":1}')).stale

    assert (await service.view(job_id))["status"] == "IN_PROGRESS"


async def test_a_report_may_bring_the_next_jobs(service: InProcessService, link: HttpLink) -> None:
    await service.submit(1)
    second = await service.submit(2)
    [job] = await link.take(request(), busy=False)

    reply = await link.finish(ref(job), b'{"output":1}', take=request(2))

    assert [job.id for job in reply.jobs] == [second]


async def test_progress_and_chunks_reach_the_caller_in_order(service: InProcessService, link: HttpLink) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)

    await link.report_progress(ref(job), b'{"percent":20}', 2)
    await link.report_progress(ref(job), b'{"percent":10}', 1)
    await link.report_chunks(ref(job), 0, [b'"a"', b'"b"'])
    await link.report_chunks(ref(job), 1, [b'"b"', b'"c"'])

    assert (await service.view(job_id))["output"] == {"percent": 20}
    stream = (await service.request("GET", f"/stream/{job_id}")).json["stream"]
    assert [chunk["output"] for chunk in stream] == ["a", "b", "c"]


async def test_a_cancelled_job_is_stopped_and_its_end_confirmed(service: InProcessService, link: HttpLink) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)
    cancelling = asyncio.create_task(service.request("POST", f"/cancel/{job_id}"))

    stops: list[AttemptRef] = []
    while not stops:
        stops = list(await link.poll_stops())
    await link.finish(ref(job), b'{"stopped":true}')

    assert [(stop.job_id, stop.number) for stop in stops] == [(job_id, 1)]
    assert (await cancelling).json["status"] == "CANCELLED"


@pytest.mark.parametrize("by_take", [True, False])
async def test_a_released_job_goes_to_another_worker(
    service: InProcessService, make_link: MakeLink, link: HttpLink, by_take: bool
) -> None:
    await service.submit(1)
    [job] = await link.take(request(), busy=False)

    await link.release([request().id] if by_take else [], [] if by_take else [ref(job)])

    [again] = await make_link("w-2").take(request(), busy=False)
    assert again.id == job.id


async def test_heartbeats_keep_a_job(service: InProcessService, link: HttpLink, clock: ManualClock) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)

    for _ in range(5):
        await clock.advance(30)
        await link.heartbeat([job.id])
    await service.server.queue.sweep.once()

    assert (await service.view(job_id))["status"] == "IN_PROGRESS"
    await clock.advance(41)
    await service.server.queue.sweep.once()
    assert (await service.view(job_id))["status"] == "IN_QUEUE"


async def test_an_unhealthy_worker_shows(service: InProcessService, link: HttpLink) -> None:
    await link.report_unhealthy("gpu", "no device")

    assert (await service.request("GET", "/health")).json["workers"]["unhealthy"] == 1


async def test_a_stored_file_can_be_fetched(service: InProcessService, link: HttpLink) -> None:
    job_id = await service.submit(1)

    await link.store_file(job_id, "t" * 22, "a.txt", "text/plain", b"content")

    reply = await service.request("GET", f"/files/{job_id}/{'t' * 22}/a.txt")
    assert (reply.body, reply.headers["content-type"]) == (b"content", "text/plain")


async def test_a_result_that_is_too_large_is_refused_and_fails_the_job(
    service: InProcessService, link: HttpLink
) -> None:
    job_id = await service.submit(1)
    [job] = await link.take(request(), busy=False)

    with pytest.raises(LinkRefused, match="exceeded max body size"):
        await link.finish(ref(job), msgspec.json.encode({"output": "x" * 2000}))

    assert (await service.view(job_id))["status"] == "FAILED"


async def test_a_service_that_is_closed_is_down(service: InProcessService, link: HttpLink) -> None:
    await service.close()

    with pytest.raises(LinkDown):
        await link.take(request(), busy=False)
