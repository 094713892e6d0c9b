"""The delivery loop against real receivers on loopback."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from runpod_worker.core.backoff import Schedule
from runpod_worker.core.errors import SettingsError
from runpod_worker.core.lifecycle import CancelRequested, Event, Failed, Retried, Taken
from runpod_worker.service.journal.port import Delivery
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import DELAYS_S, ServiceSettings, WebhookSettings
from runpod_worker.service.webhooks import Signer, Webhooks
from runpod_worker.testing import listening

TIMEOUT_S = 30
SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four bytes or more").decode()


class Receiver:
    """A server that keeps what it is sent and answers as the test says."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[tuple[str, dict[str, str], bytes]] = asyncio.Queue()
        self.answers: Callable[[int], int] = lambda number: 200
        self.hold: asyncio.Event | None = None
        self.active = self.most_active = self.number = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            self.number += 1
            self.requests.put_nowait((request.path_qs, dict(request.headers), body))
            if self.hold is not None:
                await self.hold.wait()
            status = self.answers(self.number)
            headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
            return web.Response(status=status, headers=headers, text="thanks")
        finally:
            self.active -= 1

    async def next(self) -> tuple[str, dict[str, str], bytes]:
        return await asyncio.wait_for(self.requests.get(), TIMEOUT_S)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


class Delivering:
    """The loop over a queue, and a value for each try that it has recorded."""

    def __init__(self, queue: JobQueue, tried: asyncio.Queue[Delivery]) -> None:
        self.queue = queue
        self._tried = tried

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await self._tried.get()

    async def until_all_are_settled(self) -> None:
        await self.until(lambda: self.queue.jobs.deliveries.next_at() is None)


@asynccontextmanager
async def delivering(queue: JobQueue, **settings) -> AsyncIterator[Delivering]:
    """The loop with no waits between tries."""

    async def body(job_id: str) -> bytes | None:
        job = await queue.jobs.get_committed(job_id)
        return None if job is None or not job.final else json.dumps({"id": job_id, "status": job.status}).encode()

    defaults: dict[str, Any] = {"private": True, "schedule": Schedule((0.0,) * 3)}
    chosen = WebhookSettings(**(defaults | settings))
    webhooks = Webhooks(queue, body, now=time.time, random=lambda: 0.5, settings=chosen)
    with listening(webhooks.tried) as tried:
        task = asyncio.create_task(webhooks.run())
        try:
            yield Delivering(queue, tried)
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


def reopened(folder) -> JobQueue:
    return JobQueue(SqliteJournal(folder / "jobs.db"), ServiceSettings(), now=time.time)


async def change(queue, job_id: str, *events: Event) -> None:
    transaction = Transaction(queue.jobs)
    for event in events:
        transaction.apply(job_id, event)
    await transaction.commit()


async def add(queue, job) -> None:
    transaction = Transaction(queue.jobs)
    transaction.add(job, b"{}")
    await transaction.commit()


async def ended(queue, job) -> None:
    await add(queue, job)
    await change(queue, job.id, CancelRequested(at=time.time()))


async def test_final_job_is_delivered(queue, receiver, make_job):
    async with delivering(queue) as webhooks:
        await ended(queue, make_job(webhook=receiver.url + "?a=b"))
        path, headers, body = await receiver.next()
        await webhooks.until_all_are_settled()

    assert path == "/hook?a=b"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"id": "job-1", "status": "CANCELLED"}
    assert "webhook-signature" not in headers


async def test_delivery_from_before_the_start_is_made(tmp_path, receiver, make_job):
    queue = reopened(tmp_path)
    await ended(queue, make_job(webhook=receiver.url))
    await queue.jobs.journal.close()

    queue = reopened(tmp_path)
    async with delivering(queue) as webhooks:
        await receiver.next()
        await webhooks.until_all_are_settled()
    assert receiver.requests.empty()
    await queue.jobs.journal.close()


async def test_delivery_that_was_cut_off_by_a_stop_is_made_after_the_restart(tmp_path, receiver, make_job):
    queue = reopened(tmp_path)
    receiver.hold = asyncio.Event()
    async with delivering(queue) as webhooks:
        await ended(queue, make_job(webhook=receiver.url))
        await receiver.next()
    await queue.jobs.journal.close()
    receiver.hold.set()

    queue = reopened(tmp_path)
    async with delivering(queue) as webhooks:
        await receiver.next()
        await webhooks.until_all_are_settled()
    assert receiver.requests.empty()
    await queue.jobs.journal.close()


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
async def test_answer_other_than_2xx_is_tried_again(queue, receiver, make_job, status):
    receiver.answers = lambda number: status if number < 3 else 204
    async with delivering(queue) as webhooks:
        await ended(queue, make_job(webhook=receiver.url))
        paths = [(await receiver.next())[0] for _ in range(3)]
        await webhooks.until_all_are_settled()

    assert paths == ["/hook"] * 3, "redirects are not followed"
    assert receiver.requests.empty()


async def test_waits_between_tries_follow_the_schedule(queue, receiver, make_job):
    receiver.answers = lambda number: 500
    before = time.time()
    async with delivering(queue, schedule=Schedule((1000.0,), spread=0.1)) as webhooks:
        await ended(queue, make_job(webhook=receiver.url))
        await receiver.next()
        await webhooks.until(lambda: (queue.jobs.deliveries.next_at() or 0) > before + 1000)

    [delivery] = queue.jobs.deliveries.take_due(before + 2000, 9)
    assert delivery.tries == 1
    assert before + 1050 <= delivery.next_at <= time.time() + 1050


async def test_webhook_is_given_up_after_the_last_try_and_says_so(queue, receiver, make_job, caplog):
    receiver.answers = lambda number: 500
    url = receiver.url.replace("http://", "http://user:hunter2@") + "?token=s3cret"
    with caplog.at_level(logging.DEBUG, "runpod_worker"):
        async with delivering(queue) as webhooks:
            await ended(queue, make_job(webhook=url))
            for _ in range(4):
                await receiver.next()
            await webhooks.until_all_are_settled()

    given_up = [record for record in caplog.records if record.message == "webhook.given_up"]
    assert [(record.tries, record.reason) for record in given_up] == [(4, "HTTP 500")]
    lines = " ".join(str(record.__dict__) for record in caplog.records if record.name == "runpod_worker")
    assert "hunter2" not in lines
    assert "s3cret" not in lines


async def test_slow_receiver_delays_no_other(queue, receiver, make_job):
    async with receiving() as slow, delivering(queue, max_concurrent=8, max_concurrent_per_receiver=2) as webhooks:
        slow.hold = asyncio.Event()
        await asyncio.gather(*(ended(queue, make_job(webhook=slow.url)) for _ in range(300)))
        await asyncio.gather(*(ended(queue, make_job(webhook=receiver.url)) for _ in range(20)))

        for _ in range(20):
            await receiver.next()

        assert slow.most_active == 2
        slow.hold.set()
        await webhooks.until_all_are_settled()
        assert slow.number == 300


async def test_receiver_that_never_answers_is_timed_out(queue, receiver, make_job):
    receiver.hold = asyncio.Event()
    async with delivering(queue, timeout_s=0.2, schedule=Schedule((0.0,) * 1000)):
        await ended(queue, make_job(webhook=receiver.url))
        await receiver.next()
        await receiver.next()

    assert queue.jobs.deliveries.next_at() is not None


async def test_private_address_is_refused_at_once_and_visibly(queue, receiver, make_job, caplog):
    async with delivering(queue, private=False) as webhooks:
        await ended(queue, make_job(webhook=receiver.url))
        await webhooks.until_all_are_settled()

    assert receiver.requests.empty()
    assert [record.reason for record in caplog.records if record.message == "webhook.given_up"] == [
        "the address is not a public one"
    ]


@pytest.mark.parametrize("url", ["ftp://example.com/", "no url", "http://"])
async def test_url_that_cannot_be_called_is_given_up(queue, make_job, url, caplog):
    async with delivering(queue) as webhooks:
        await ended(queue, make_job(webhook=url))
        await webhooks.until_all_are_settled()

    assert "webhook.given_up" in [record.message for record in caplog.records]


async def test_job_that_was_retried_is_told_again_when_it_ends_anew(queue, receiver, make_job):
    receiver.hold = asyncio.Event()
    job = make_job(webhook=receiver.url)
    await add(queue, job)
    await change(queue, job.id, Taken(at=time.time(), worker="w"))
    async with delivering(queue) as webhooks:
        await change(queue, job.id, Failed(at=time.time(), worker="w", error="e"))
        first = json.loads((await receiver.next())[2])
        await change(queue, job.id, Retried(at=time.time()))
        await change(queue, job.id, CancelRequested(at=time.time()))
        receiver.hold.set()

        second = json.loads((await receiver.next())[2])
        await webhooks.until_all_are_settled()

    assert (first["status"], second["status"]) == ("FAILED", "CANCELLED")


async def test_signature_is_one_that_standard_webhooks_verifies(queue, receiver, make_job):
    receiver.answers = lambda number: 500 if number == 1 else 200
    async with delivering(queue, secret=SECRET):
        await ended(queue, make_job(webhook=receiver.url))
        _, headers, body = await receiver.next()
        _, again, _ = await receiver.next()

    assert Webhook(SECRET).verify(body, headers)["id"] == "job-1"
    assert again["webhook-id"] == headers["webhook-id"]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"job-1", b"job-2"), headers)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_c2hvcnQ=", "not base64 !", "whsec_ü"])
def test_secret_that_is_none_is_refused(secret):
    with pytest.raises(SettingsError, match=r"webhooks\.secret"):
        Signer(secret)


def test_first_waits_are_the_platforms():
    assert DELAYS_S[:2] == (5, 15)
    assert list(DELAYS_S) == sorted(DELAYS_S)
