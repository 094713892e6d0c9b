"""What workers send to `/v2/{endpoint}`: RunPod's protocol (B.4 to B.9) and what docs/extensions.md adds to it."""

from __future__ import annotations

import re
from functools import lru_cache, partial

import msgspec

from runpod_worker.core.errors import BadRequest, TooLarge
from runpod_worker.core.protocol import EXTENSIONS, X_ATTEMPT, X_EXTENSIONS, X_FILES_URL, X_STALE, X_TAKE, X_TAKE_ID
from runpod_worker.service.http import wire
from runpod_worker.service.http.replies import Answer, Reply, empty_reply, json_reply, render_head
from runpod_worker.service.http.routing import Call, Route
from runpod_worker.service.queue.assign import ReturnedJob
from runpod_worker.service.queue.polls import Ask, Handed
from runpod_worker.service.queue.queue import Service
from runpod_worker.service.queue.reports import Holder, Received
from runpod_worker.service.queue.workers import Worker

GET, POST = "GET", "POST"
MAX_BATCH_JOBS = 100
X_REQUEST_ID = "X-Request-ID"

_TAKE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WorkerRoutes:
    """The workers' side of the service."""

    def __init__(self, service: Service, extensions: frozenset[str] = EXTENSIONS) -> None:
        self._service = service
        self._settings = service.settings
        self._names = " ".join(sorted(extensions))
        self._files = "files" in extensions
        self._headers = lru_cache(256)(self._make_headers)

    def table(self) -> dict[str, Route]:
        """The routes by verb."""
        return {
            "job-take": Route(self.take, GET, segments=1),
            "job-take-batch": Route(self.take_batch, GET, segments=1),
            "job-stop": Route(self.stop, GET, segments=1),
            "job-done": Route(self.done, POST, segments=2),
            "job-stream": Route(self.stream, POST, segments=2),
            "job-return": Route(self.give_back, POST, segments=1),
            "ping": Route(self.ping, GET, segments=1),
        }

    async def take(self, call: Call) -> Answer:
        """One job, waiting for it."""
        return await self._take(call, 1, as_list=False)

    async def take_batch(self, call: Call) -> Answer:
        """Up to `batch_size` jobs, waiting for the first."""
        limit = wire.number("batch_size", call.query.get("batch_size"), 1, (1, MAX_BATCH_JOBS))
        return await self._take(call, limit, as_list=True)

    async def _take(self, call: Call, limit: int, *, as_list: bool) -> Answer:
        ask = self._ask(call, limit)
        known = self._service.workers.heard(ask.endpoint, ask.worker)
        known.ready, known.unhealthy = True, False
        if known.retired and known.sign == X_REQUEST_ID and call.header(X_REQUEST_ID) is None:
            known.retired = False
        known.polls += 1
        try:
            if known.retired:
                await self._service.workers.idle(ask.endpoint, ask.worker, self._settings.take_poll_timeout_s)
                handed = []
            else:
                handed = await self._service.takes.take(ask, self._settings.take_poll_timeout_s)
        finally:
            known.polls -= 1
        self._service.workers.heard(ask.endpoint, ask.worker)
        if not handed:
            return empty_reply(self._reply_headers(call))
        return self._assign(ask, handed, self._reply_headers(call), as_list=as_list)

    def _assign(self, ask: Ask, handed: list[Handed], headers: bytes, *, as_list: bool) -> Reply:
        """The reply with these jobs. If it does not arrive, they go to another worker."""
        content = b"[%s]" % b",".join([job.body for job in handed]) if as_list else handed[0].body
        return json_reply(content, headers, on_lost=partial(self._service.takes.put_back, ask, handed))

    async def stop(self, call: Call) -> Answer:
        """The jobs this worker has to stop, waiting for one."""
        worker = call.rest[0]
        told = await self._service.workers.stops(call.endpoint, worker, self._settings.take_poll_timeout_s)
        if not told:
            return empty_reply(self._reply_headers(call))
        said: dict[str, object] = {"jobsToStop": list(told)}
        if "stop" in (call.header(X_EXTENSIONS) or "").split():
            said["attempts"] = list(told.values())

        async def repeat() -> None:
            for job_id, attempt in told.items():
                self._service.workers.stop(call.endpoint, worker, job_id, attempt)

        return json_reply(msgspec.json.encode(said), self._reply_headers(call), on_lost=repeat)

    async def done(self, call: Call) -> Answer:
        """A result, an error, a confirmed stop, or progress."""
        who, job_id = self._holder(call), call.rest[1]
        try:
            content = await call.request.read_body(self._settings.max_result_bytes)
        except TooLarge as exc:
            await self._service.reports.refuse(who, job_id, exc)
            raise
        report = wire.report(content, streamed=call.query.get("isStream") == "true")
        wanted = wire.number(X_TAKE, call.header(X_TAKE), 0, (0, MAX_BATCH_JOBS))
        known = self._service.workers.heard(who.endpoint, who.worker)
        if report.stop_pod:
            self._service.workers.retire(who.endpoint, who.worker, _sign(call))
        ask = self._ask(call, wanted) if wanted and not known.retired and not report.progress else None
        received = await self._service.reports.done(who, job_id, report, ask)
        headers = self._received_headers(call, received)
        if received.handed and ask is not None:
            return self._assign(ask, received.handed, headers, as_list=True)
        return json_reply(b"[]" if wanted and not report.progress else b"", headers)

    async def stream(self, call: Call) -> Answer:
        """One or several chunks."""
        chunks, index = wire.chunks(await call.request.read_body(self._settings.max_result_bytes))
        received = await self._service.reports.chunks(self._holder(call), call.rest[1], chunks, index)
        return json_reply(b"", self._received_headers(call, received))

    async def give_back(self, call: Call) -> Answer:
        """Jobs that the worker did not start."""
        said = wire.returned(await call.request.read_body(self._settings.max_result_bytes))
        named = [ReturnedJob(job_id=one.id, attempt=one.attempt, take=one.take) for one in said.jobs]
        count = await self._service.takes.give_back(call.endpoint, call.rest[0], set(said.takes), named)
        return json_reply(b'{"returned":%d}' % count, self._reply_headers(call))

    async def ping(self, call: Call) -> Answer:
        """The worker is alive, and holds these jobs."""
        worker = call.rest[0]
        known = self._service.workers.heard(call.endpoint, worker)
        known.unhealthy = call.query.get("status") == "unhealthy"
        if call.header(X_EXTENSIONS) is None:
            _renew(known)
        job_ids = [job_id for job_id in call.query.get("job_id", "").split(",") if job_id]
        if job_ids:
            await self._service.reports.beat(Holder(endpoint=call.endpoint, worker=worker), job_ids)
        return json_reply(b"{}", self._reply_headers(call))

    def _ask(self, call: Call, limit: int) -> Ask:
        spoken = (call.header(X_EXTENSIONS) or "").split()
        take = call.header(X_TAKE_ID) or ""
        if take and not _TAKE_ID.fullmatch(take):
            raise BadRequest(f"{X_TAKE_ID}: expected 1 to 64 characters of A-Za-z0-9_-, got {take[:80]!r}")
        return Ask(
            endpoint=call.endpoint,
            worker=call.rest[0],
            limit=limit,
            take=take,
            gpu=call.query.get("gpu") or None,
            counted="attempt" in spoken,
            confirms="stop" in spoken,
            alive=call.is_alive,
        )

    def _holder(self, call: Call) -> Holder:
        counted = call.header(X_ATTEMPT)
        attempt = wire.number(X_ATTEMPT, counted, 0, (0, 2**31)) if counted else None
        return Holder(endpoint=call.endpoint, worker=call.rest[0], attempt=attempt)

    def _received_headers(self, call: Call, received: Received) -> bytes:
        headers = self._reply_headers(call)
        return headers + render_head({X_STALE: "1"}) if received.stale and call.header(X_EXTENSIONS) else headers

    def _reply_headers(self, call: Call) -> bytes:
        base = self._settings.public_url or call.request.origin
        return self._headers(base, call.endpoint)

    def _make_headers(self, base: str, endpoint: str) -> bytes:
        headers = {X_EXTENSIONS: self._names}
        if self._files:
            headers[X_FILES_URL] = f"{base.rstrip('/')}/v2/{endpoint}/files"
        return render_head(headers)


def _sign(call: Call) -> str:
    """A header that this process sends with every request from now on, see `Workers.retire`."""
    if call.header(X_EXTENSIONS) is not None:
        return X_EXTENSIONS
    return X_REQUEST_ID if call.header(X_REQUEST_ID) is not None else ""


def _renew(known: Worker) -> None:
    """A worker that spoke extensions pings without them: this is the first ping of a new process."""
    if known.retired and known.sign == X_EXTENSIONS:
        known.retired = False
