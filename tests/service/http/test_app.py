"""The whole service driven by values, without a socket."""

from __future__ import annotations

import asyncio
import json

import pytest

from runpod_worker.service.http.app import App
from runpod_worker.service.http.replies import Reply, StreamReply
from runpod_worker.service.http.requests import PlainRequest, cancel_on_disconnect
from runpod_worker.service.server import Server, open_stores
from runpod_worker.service.settings import ServiceSettings


@pytest.fixture
def app() -> App:
    settings = ServiceSettings(take_poll_timeout_s=0.01, keepalive_s=0.01)
    return Server(settings, open_stores(settings)).app


async def test_a_job_goes_from_submission_to_result(app: App) -> None:
    submitted = await app.handle(PlainRequest("POST", "/v2/ep/run", body=b'{"input":1}'))
    assert isinstance(submitted, Reply)
    job_id = json.loads(submitted.content)["id"]

    taken = await app.handle(PlainRequest("GET", "/v2/ep/job-take/w?gpu=A"))
    assert isinstance(taken, Reply)
    assert json.loads(taken.content) == {"id": job_id, "input": 1}
    done = await app.handle(PlainRequest("POST", f"/v2/ep/job-done/w/{job_id}?gpu=A", body=b'{"output":2}'))
    assert isinstance(done, Reply)
    assert done.status == 200

    status = await app.handle(PlainRequest("GET", f"/v2/ep/status/{job_id}"))
    assert isinstance(status, Reply)
    assert json.loads(status.content)["output"] == 2


async def test_refusals_are_replies(app: App) -> None:
    for method, target, status in (
        ("GET", "/", 404),
        ("GET", "/v2/ep/nothing", 404),
        ("GET", "/v2/ep/run", 405),
        ("POST", "/v2/ep/run", 400),
        ("GET", "/v2/ep/status/x", 404),
    ):
        reply = await app.handle(PlainRequest(method, target))
        assert isinstance(reply, Reply)
        assert (reply.status, json.loads(reply.content)["status"]) == (status, status)


async def test_a_large_body_is_refused(app: App) -> None:
    reply = await app.handle(PlainRequest("POST", "/v2/ep/run", body=b'{"input":"%s"}' % (b"x" * 2**24)))

    assert isinstance(reply, Reply)
    assert b"exceeded max body size of 10MiB" in reply.content


async def test_a_long_poll_is_a_stream_of_spaces_and_the_view(app: App) -> None:
    reply = await app.handle(PlainRequest("POST", "/v2/ep/runsync?wait=1000", body=b'{"input":1}'))

    assert isinstance(reply, StreamReply)
    assert reply.headers["X-Accel-Buffering"] == "no", "a proxy that buffers would keep the spaces"
    content = b"".join([piece async for piece in reply.pieces])
    assert content.startswith(b"  ")
    assert json.loads(content)["status"] == "IN_QUEUE"


async def test_a_lost_reply_to_a_take_returns_its_job(app: App) -> None:
    await app.handle(PlainRequest("POST", "/v2/ep/run", body=b'{"input":1}'))
    lost = await app.handle(PlainRequest("GET", "/v2/ep/job-take/w?gpu=A"))
    assert isinstance(lost, Reply)
    assert lost.on_lost is not None

    await lost.on_lost()

    again = await app.handle(PlainRequest("GET", "/v2/ep/job-take/v?gpu=A"))
    assert isinstance(again, Reply)
    assert again.content == lost.content


async def test_work_for_a_caller_that_hangs_up_is_cancelled() -> None:
    request = PlainRequest("GET", "/")
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    working = asyncio.create_task(cancel_on_disconnect(request, work()))
    await started.wait()
    request.gone.set()

    with pytest.raises(ConnectionResetError):
        await working
    assert cancelled.is_set()


async def test_work_that_ends_first_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert await cancel_on_disconnect(PlainRequest("GET", "/"), work()) == 7


def test_headers_are_known_in_any_case() -> None:
    request = PlainRequest("GET", "/", {"X-Take-Id": "1"})

    assert (request.headers.get("x-take-id"), request.headers.get("none")) == ("1", None)
