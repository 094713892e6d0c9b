"""Delivers webhooks, which the journal writes together with the end of a job.

1. A delivery leaves the outbox only when the receiver answered 2xx or the last try failed. So a restart loses none,
   and a receiver may get one twice (the job's id shows that).
2. Each receiver (scheme, host, port) has a lane of its own, so that a slow receiver does not delay the others.
3. Only the status of a receiver's reply counts. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from runpod_worker.core.errors import SettingsError, StoreUnavailable
from runpod_worker.core.testsignal import TestSignal
from runpod_worker.log import log, log_errors
from runpod_worker.net import connector as net
from runpod_worker.service.journal.port import Delivery
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.settings import WebhookSettings

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives to secrets
MAX_DUE_DELIVERIES = 256
"""Due deliveries are read from the outbox in groups of this size."""

RETRY_S = 1.0
"""The pause after an internal error, before the outbox is read again."""

_HEADERS = {"Content-Type": "application/json", "User-Agent": "runpod-worker"}

Body = Callable[[str], Awaitable[bytes | None]]
"""Renders the body from the job's id (protocol A.8); None if the job has not ended, or runs again."""


class Signer:
    """Signs bodies by standardwebhooks.com, version v1 (HMAC-SHA256).

    Raises:
        SettingsError: the secret is not base64, or has fewer than 24 bytes.
    """

    def __init__(self, secret: str) -> None:
        try:
            self._key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except ValueError:
            raise SettingsError("webhooks.secret: expected whsec_ and base64 (Standard Webhooks)") from None
        if len(self._key) < 24:
            raise SettingsError(f"webhooks.secret: expected at least 24 bytes in base64, got {len(self._key)}")

    def headers(self, job_id: str, body: bytes, now: float) -> dict[str, str]:
        """The three headers. The message id is the same on each try, and changes when a retried job ends again."""
        message = f"{job_id}-{hashlib.sha256(body).hexdigest()[:12]}"
        stamp = str(int(now))
        digest = hmac.digest(self._key, f"{message}.{stamp}.".encode() + body, "sha256")
        signature = "v1," + base64.b64encode(digest).decode()
        return {"webhook-id": message, "webhook-timestamp": stamp, "webhook-signature": signature}


@dataclass(slots=True)
class _Lane:
    waiting: deque[str] = field(default_factory=deque)
    active: int = 0


class Webhooks:
    """The delivery loop: start `run` as a task, and cancel the task to stop.

    Args:
        queue: has the deliveries that are not settled: its outbox.
        body: renders the body.
        now: seconds since the epoch, the clock of the jobs' times.
        random: floats from 0 to 1, to spread retries.

    Raises:
        SettingsError: the secret in the settings is not a valid one.
    """

    def __init__(
        self,
        queue: JobQueue,
        body: Body,
        *,
        now: Callable[[], float],
        random: Callable[[], float],
        settings: WebhookSettings,
    ) -> None:
        self._queue = queue
        self._body = body
        self._now = now
        self._random = random
        self._settings = settings
        self._signer = Signer(self._settings.secret) if self._settings.secret else None
        self._lanes: dict[str, _Lane] = {}
        self._known: dict[str, Delivery] = {}
        self._active = 0
        self._woken = queue.jobs.deliveries.changed
        self.tried: TestSignal[Delivery] = TestSignal()
        """Sent after each try, when its result is recorded."""

    async def run(self) -> None:
        """Deliver until cancelled. A delivery that was cancelled is made again later."""
        connector = net.connector(private=self._settings.private, limit=self._settings.max_concurrent)
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        async with session, asyncio.TaskGroup() as deliveries:
            while True:
                self._woken.clear()
                try:
                    self._collect_due()
                    for delivery in self._pop_startable():
                        deliveries.create_task(self._deliver(session, delivery), name=f"webhook-{delivery.job_id}")
                    await self._sleep()
                except Exception:
                    log.exception("entry.failed", extra={"loop": "webhooks"})
                    await asyncio.sleep(RETRY_S)

    def _collect_due(self) -> None:
        """Sort the due deliveries into the lanes."""
        while True:
            due = self._queue.jobs.deliveries.take_due(self._now(), MAX_DUE_DELIVERIES)
            for delivery in due:
                if delivery.job_id not in self._known:
                    self._lanes.setdefault(_origin(delivery.url), _Lane()).waiting.append(delivery.job_id)
                self._known[delivery.job_id] = delivery  # a retried job may have ended again
            if len(due) < MAX_DUE_DELIVERIES:
                return

    def _pop_startable(self) -> list[Delivery]:
        """The deliveries that may start now. A lane that starts a delivery becomes the last lane."""
        chosen: list[Delivery] = []
        for origin, lane in list(self._lanes.items()):
            while lane.waiting and lane.active < self._settings.max_concurrent_per_receiver:
                if self._active >= self._settings.max_concurrent:
                    return chosen
                lane.active += 1
                self._active += 1
                chosen.append(self._known[lane.waiting.popleft()])
                self._lanes[origin] = self._lanes.pop(origin)
        return chosen

    async def _sleep(self) -> None:
        next_at = self._queue.jobs.deliveries.next_at()
        try:
            async with asyncio.timeout(None if next_at is None else max(0.0, next_at - self._now())):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            await self._try(session, delivery)
        except StoreUnavailable:  # it is not settled, so that the outbox returns it again later
            log.exception("webhook.error", extra={"job": delivery.job_id, "receiver": _origin(delivery.url)})
        except Exception as exc:
            log.exception("webhook.error", extra={"job": delivery.job_id, "receiver": _origin(delivery.url)})
            with log_errors("webhooks", job=delivery.job_id):
                await self._fail(delivery, type(exc).__name__)
        finally:
            with log_errors("webhooks", job=delivery.job_id):
                self._release_lane(delivery)
                self.tried.send(delivery)

    def _release_lane(self, delivery: Delivery) -> None:
        origin = _origin(delivery.url)
        lane = self._lanes[origin]
        lane.active -= 1
        self._active -= 1
        if self._known[delivery.job_id] == delivery:
            del self._known[delivery.job_id]
        else:
            lane.waiting.append(delivery.job_id)
        if not lane.active and not lane.waiting:
            del self._lanes[origin]
        self._woken.set()

    async def _try(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        body = await self._body(delivery.job_id)
        if body is None:
            await self._queue.settle(delivery)
            return
        try:
            status = await self._post(session, delivery, body)
        except ValueError as exc:
            await self._give_up(delivery, f"url: {exc}")
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            if net.refused(exc):
                await self._give_up(delivery, "the address is not a public one")
            else:
                await self._fail(delivery, type(exc).__name__)
        else:
            if 200 <= status < 300:
                await self._queue.settle(delivery)
                log.debug("webhook.delivered", extra={"job": delivery.job_id, "receiver": _origin(delivery.url)})
            else:
                await self._fail(delivery, f"HTTP {status}")

    async def _post(self, session: aiohttp.ClientSession, delivery: Delivery, body: bytes) -> int:
        headers = _HEADERS | {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
        if self._signer is not None:
            headers |= self._signer.headers(delivery.job_id, body, self._now())
        url = net.check_url(delivery.url)
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
            return reply.status  # the body is not read

    async def _fail(self, delivery: Delivery, reason: str) -> None:
        delay = self._settings.schedule.delay(delivery.tries + 1, self._random)
        if delay is None:
            await self._give_up(delivery, reason)
            return
        fields = {"receiver": _origin(delivery.url), "reason": reason, "tries": delivery.tries + 1, "next_s": delay}
        log.info("webhook.failed", extra={"job": delivery.job_id, **fields})
        await self._queue.postpone(delivery, self._now() + delay)

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        fields = {"receiver": _origin(delivery.url), "reason": reason, "tries": delivery.tries + 1}
        log.error("webhook.given_up", extra={"job": delivery.job_id, **fields})
        await self._queue.settle(delivery)


def _origin(url: str) -> str:
    """Scheme, host and port: the parts of a URL that may appear in a log."""
    try:
        return str(URL(url).origin())
    except ValueError:
        return "unusable"
