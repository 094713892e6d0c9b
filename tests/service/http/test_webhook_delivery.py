"""From the end of a job to its webhook, through the real service (protocol A.8)."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from runpod_worker.core.backoff import Schedule
from runpod_worker.service.settings import WebhookSettings


@pytest.fixture
async def hooks():
    """A receiver on loopback: its URL, what it got, and how it answers."""
    received: asyncio.Queue[dict] = asyncio.Queue()
    answers: list[int] = []

    async def receive(request: web.BaseRequest) -> web.Response:
        received.put_nowait(json.loads(await request.read()))
        return web.Response(status=answers.pop(0) if answers else 200)

    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/hook", received, answers
    await runner.cleanup()


@pytest.fixture
async def running(serve):
    return await serve(webhooks=WebhookSettings(private=True, schedule=Schedule((0.01, 0.01))))


async def test_a_completed_job_is_sent_in_full(api, plain, hooks):
    url, received, _ = hooks
    job_id = await api.run({"x": 1}, webhook=url)
    await plain.take()
    await plain.done(job_id, {"output": {"echo": {"x": 1}}})

    body = await asyncio.wait_for(received.get(), 20)

    assert body == {**await api.status(job_id), "webhook": url}
    assert (body["input"], body["output"], body["status"]) == ({"x": 1}, {"echo": {"x": 1}}, "COMPLETED")


@pytest.mark.parametrize("end", ["failed", "cancelled", "purged"])
async def test_every_other_end_is_sent_too(api, plain, hooks, end):
    url, received, _ = hooks
    job_id = await api.run({"x": 1}, webhook=url)
    if end == "failed":
        await plain.take()
        await plain.done(job_id, {"error": "boom"})
    elif end == "cancelled":
        await api.post(f"/cancel/{job_id}")
    else:
        await api.post("/purge-queue")

    body = await asyncio.wait_for(received.get(), 20)

    assert body["id"] == job_id
    assert body["status"] == ("FAILED" if end == "failed" else "CANCELLED")
    assert body.get("error") == ("boom" if end == "failed" else None)


async def test_a_receiver_that_fails_gets_another_try(api, plain, hooks):
    url, received, answers = hooks
    answers[:] = [500, 503]
    job_id = await api.run(webhook=url)
    await plain.take()
    await plain.done(job_id, {"output": 1})

    body = [await asyncio.wait_for(received.get(), 20) for _ in range(3)]

    assert [each["id"] for each in body] == [job_id] * 3
