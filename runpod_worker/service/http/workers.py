"""The routes of workers below `/v2/{endpoint}`: RunPod's protocol (B.4 to B.9), and ours (docs/extensions.md)."""

from __future__ import annotations

import re
from functools import lru_cache, partial

import msgspec

from runpod_worker.core.errors import BadRequest, TooLarge
from runpod_worker.core.protocol import (
    EXTENSIONS,
    X_ATTEMPT,
    X_EXTENSIONS,
    X_FILES_MAX_BYTES,
    X_FILES_URL,
    X_STALE,
    X_TAKE,
    X_TAKE_ID,
)
from runpod_worker.service.http import wire
from runpod_worker.service.http.replies import Answer, Reply, json_reply, render_head
from runpod_worker.service.http.requests import Call, Route
from runpod_worker.service.queue.polls import Assigned, TakeRequest
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.reports import Reporter, ReportResult
from runpod_worker.service.queue.workers import ProcessMarker

MAX_BATCH_JOBS = 100
"""A take for more jobs gets this number."""

X_REQUEST_ID = "X-Request-ID"

_TAKE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class WorkerRoutes:
    """The routes of workers."""

    def __init__(self, queue: JobQueue, extensions: frozenset[str] = EXTENSIONS) -> None:
        self._queue = queue
        self._settings = queue.settings
        self._names = " ".join(sorted(extensions))
        self._files = "files" in extensions
        self._headers = lru_cache(256)(self._make_headers)

    def table(self) -> dict[str, Route]:
        return {
            "job-take": Route(self.take, ("GET",), segments=1),
            "job-take-batch": Route(self.take, ("GET",), segments=1),
            "job-stop": Route(self.stop, ("GET",), segments=1),
            "job-done": Route(self.done, segments=2, any_type=True),
            "job-stream": Route(self.stream, segments=2, any_type=True),
            "job-return": Route(self.release, segments=1, any_type=True),
            "ping": Route(self.ping, ("GET",), segments=1),
        }

    async def take(self, call: Call) -> Answer:
        """Reply with one job, or with a list of up to `batch_size` jobs; wait for the first."""
        as_list = call.verb == "job-take-batch"
        batch_size = call.query.get("batch_size") if as_list else None
        request = self._take_request(call, wire.parse_number("batch_size", batch_size, 1, (1, MAX_BATCH_JOBS)))
        has_request_id = call.header(X_REQUEST_ID) is not None
        known = self._queue.workers.begin_take(request.endpoint, request.worker, has_request_id=has_request_id)
        timeout_s = self._settings.take_poll_timeout_s
        try:
            if known.retired:
                await self._queue.workers.idle(timeout_s)
                assigned = []
            else:
                assigned = await self._queue.takes.take(request, timeout_s)
        finally:
            known.polls -= 1
        self._queue.workers.touch(request.endpoint, request.worker)
        if not assigned:
            return Reply(204, self._reply_headers(call), b"")
        reply = await self._assign(request, assigned, self._reply_headers(call), as_list=as_list)
        return reply or Reply(204, self._reply_headers(call), b"")

    async def _assign(
        self, request: TakeRequest, assigned: list[Assigned], headers: bytes, *, as_list: bool
    ) -> Reply | None:
        """The reply with these jobs, None without any. If it does not arrive, they go to another worker."""
        now = self._queue.jobs.now()
        jobs: list[bytes] = []
        for each in assigned:
            try:
                jobs.append(wire.render_assignment(each, now=now, counted=request.counted))
            except Exception as exc:  # its neighbours are sent without it
                await self._queue.takes.set_aside(each.job, exc)
        if not jobs:
            return None
        content = b"[%s]" % b",".join(jobs) if as_list else jobs[0]
        return json_reply(content, headers, on_lost=partial(self._queue.takes.release_undelivered, request, assigned))

    async def stop(self, call: Call) -> Answer:
        """Reply with the jobs that this worker has to stop; wait for the first."""
        worker = call.segments[0]
        stops = await self._queue.workers.wait_stops(call.endpoint, worker, self._settings.take_poll_timeout_s)
        if not stops:
            return Reply(204, self._reply_headers(call), b"")
        content: dict[str, object] = {"jobsToStop": list(stops)}
        if "stop" in _extensions(call):
            content["attempts"] = list(stops.values())

        async def repeat() -> None:
            for job_id, attempt in stops.items():
                self._queue.workers.stop(call.endpoint, worker, job_id, attempt)

        return json_reply(msgspec.json.encode(content), self._reply_headers(call), on_lost=repeat)

    async def done(self, call: Call) -> Answer:
        """Accept a result, an error, a confirmed stop, or progress."""
        reporter, job_id = self._reporter(call), call.segments[1]
        try:
            content = await call.request.read_body(self._settings.max_result_bytes)
        except TooLarge as exc:
            await self._queue.reports.refuse(reporter, job_id, exc)
            raise
        report = wire.parse_report(content, streamed=call.query.get("isStream") == "true")
        max_jobs = wire.parse_number(X_TAKE, call.header(X_TAKE), 0, (0, MAX_BATCH_JOBS))
        known = self._queue.workers.touch(reporter.endpoint, reporter.worker)
        if report.stop_pod:
            self._queue.workers.retire(reporter.endpoint, reporter.worker, _process_marker(call))
        if report.progress:
            result = await self._queue.reports.progress(reporter, job_id, report)
            return json_reply(b"", self._result_headers(call, result))
        request = self._take_request(call, max_jobs) if max_jobs and not known.retired else None
        result = await self._queue.reports.finish(reporter, job_id, report, request)
        headers = self._result_headers(call, result)
        reply = None
        if result.assigned and request is not None:
            reply = await self._assign(request, result.assigned, headers, as_list=True)
        return reply or json_reply(b"[]" if max_jobs else b"", headers)

    async def stream(self, call: Call) -> Answer:
        chunks, index = wire.parse_chunks(await call.request.read_body(self._settings.max_result_bytes))
        result = await self._queue.reports.add_chunks(self._reporter(call), call.segments[1], chunks, index)
        return json_reply(b"", self._result_headers(call, result))

    async def release(self, call: Call) -> Answer:
        released = wire.parse_release(await call.request.read_body(self._settings.max_result_bytes))
        count = await self._queue.takes.release(call.endpoint, call.segments[0], released.takes, released.jobs)
        return json_reply(b'{"returned":%d}' % count, self._reply_headers(call))

    async def ping(self, call: Call) -> Answer:
        """Accept a heartbeat: the worker is alive, and holds these jobs."""
        worker = call.segments[0]
        self._queue.workers.heartbeat(
            call.endpoint,
            worker,
            unhealthy=call.query.get("status") == "unhealthy",
            has_extensions=call.header(X_EXTENSIONS) is not None,
        )
        job_ids = [job_id for job_id in call.query.get("job_id", "").split(",") if job_id]
        leased = await self._queue.reports.heartbeat(Reporter(endpoint=call.endpoint, worker=worker), job_ids)
        content = {"leased": leased} if "leases" in _extensions(call) else {}
        return json_reply(msgspec.json.encode(content), self._reply_headers(call))

    def _take_request(self, call: Call, max_jobs: int) -> TakeRequest:
        extensions = _extensions(call)
        take_id = call.header(X_TAKE_ID) or ""
        if take_id and not _TAKE_ID.fullmatch(take_id):
            raise BadRequest(f"{X_TAKE_ID}: expected 1 to 64 characters of A-Za-z0-9_-, got {take_id[:80]!r}")
        return TakeRequest(
            endpoint=call.endpoint,
            worker=call.segments[0],
            max_jobs=max_jobs,
            id=take_id,
            gpu=call.query.get("gpu") or None,
            counted="attempt" in extensions,
            confirms="stop" in extensions,
            is_alive=call.is_alive,
        )

    def _reporter(self, call: Call) -> Reporter:
        counted = call.header(X_ATTEMPT)
        attempt = wire.parse_number(X_ATTEMPT, counted, 0, (0, 2**31)) if counted else None
        return Reporter(endpoint=call.endpoint, worker=call.segments[0], attempt=attempt)

    def _result_headers(self, call: Call, result: ReportResult) -> bytes:
        headers = self._reply_headers(call)
        return headers + render_head({X_STALE: "1"}) if result.is_stale and call.header(X_EXTENSIONS) else headers

    def _reply_headers(self, call: Call) -> bytes:
        return self._headers(self._settings.public_url or call.request.origin, call.endpoint)

    def _make_headers(self, base: str, endpoint: str) -> bytes:
        headers = {X_EXTENSIONS: self._names}
        if self._files:
            headers[X_FILES_URL] = f"{base.rstrip('/')}/v2/{endpoint}/files"
            headers[X_FILES_MAX_BYTES] = str(self._settings.max_file_bytes)
        return render_head(headers)


def _extensions(call: Call) -> list[str]:
    return (call.header(X_EXTENSIONS) or "").split()


def _process_marker(call: Call) -> ProcessMarker:
    """The header that this process sends with every request from now on."""
    if call.header(X_EXTENSIONS) is not None:
        return ProcessMarker.EXTENSIONS
    return ProcessMarker.REQUEST_ID if call.header(X_REQUEST_ID) is not None else ProcessMarker.NONE
