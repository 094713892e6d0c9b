"""The routes of callers below `/v2/{endpoint}` (protocol A.2), and the views of jobs and files that they get."""

from __future__ import annotations

import ipaddress

import msgspec

from runpod_worker.core.errors import BadRequest, JobNotFound
from runpod_worker.core.job import Job, Status
from runpod_worker.net import connector as net
from runpod_worker.service.files import DEFAULT_TYPE, SERVE_HEADERS, FileName, FolderFiles, content_disposition
from runpod_worker.service.http import wire
from runpod_worker.service.http.replies import Answer, FileReply, Reply, json_reply, long_poll
from runpod_worker.service.http.requests import Call, Route, RouteNotFound
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Submission
from runpod_worker.service.queue.queue import JobQueue, StreamRead

_INLINE_TYPES = ("image/", "video/", "audio/")
"""Types that a browser may show in place; any other is offered as a download."""


class ClientRoutes:
    """The routes of callers."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._settings = queue.settings

    def table(self) -> dict[str, Route]:
        """The routes by verb. Some answer GET and POST, because clients use both."""
        return {
            "run": Route(self.run),
            "runsync": Route(self.runsync),
            "status": Route(self.status, ("GET", "POST"), segments=1),
            "status-sync": Route(self.status_sync, ("GET", "POST"), segments=1),
            "stream": Route(self.stream, ("GET", "POST"), segments=1),
            "cancel": Route(self.cancel, segments=1),
            "retry": Route(self.retry, segments=1),
            "purge-queue": Route(self.purge_queue),
            "health": Route(self.health, ("GET", "POST")),
        }

    async def run(self, call: Call) -> Answer:
        submission = await self._submission(call, self._settings.max_run_bytes)
        job = await self._queue.submit(call.endpoint, submission)
        return json_reply(wire.render_submitted(job.id))

    async def runsync(self, call: Call) -> Answer:
        """Submit a job; reply with its view when it has ended, or as it is after the wait."""
        submission = await self._submission(call, self._settings.max_runsync_bytes)
        wait_s = self._wait(call, self._settings.runsync_poll_timeout_s)
        job = await self._queue.submit(call.endpoint, submission, sync=True)

        async def view(timeout_s: float | None) -> Reply | None:
            if timeout_s is None:
                await self._queue.flush(job.id)
                return await self._view(call, job.id)
            end = await self._queue.wait_end(job.id, timeout_s)
            if end is None:
                return None
            timings = self._queue.reports.timings(job.id) if _timings(call) else None
            return json_reply(wire.render_view(end.job, source=submission.input, output=end.output, timings=timings))

        return await long_poll(wait_s, self._settings.keepalive_s, view)

    async def status(self, call: Call) -> Answer:
        """Reply with the job as it is; `?ttl=` sets how much longer it may live."""
        ttl_s = wire.parse_milliseconds("ttl", call.query.get("ttl"), 0, self._settings.ttl_bounds_ms)
        if ttl_s:
            await self._queue.set_ttl(call.endpoint, call.segments[0], round(ttl_s * 1000))
        return await self._view(call, call.segments[0])

    async def status_sync(self, call: Call) -> Answer:
        """Reply with the job when it has ended, or as it is after the wait."""
        job_id = call.segments[0]
        await self._queue.get(call.endpoint, job_id)
        wait_s = self._wait(call, self._settings.runsync_poll_timeout_s)

        async def view(timeout_s: float | None) -> Reply | None:
            waits = timeout_s is not None and await self._queue.wait_end(job_id, timeout_s) is None
            return None if waits else await self._view(call, job_id)

        return await long_poll(wait_s, self._settings.keepalive_s, view)

    async def stream(self, call: Call) -> Answer:
        """Reply with the chunks that were not read yet; wait for the first of them."""
        job_id = call.segments[0]
        wait_s = self._wait(call, self._settings.stream_poll_timeout_s)
        count = 0

        async def chunks(timeout_s: float | None) -> Reply | None:
            nonlocal count
            read = await self._queue.read_stream(call.endpoint, job_id, timeout_s or 0)
            count = len(read.chunks)
            waits = not (read.chunks or read.job.final or timeout_s is None)
            return None if waits else json_reply(_stream_view(read))

        async def mark_unread() -> None:
            self._queue.unread(job_id, count)

        return await long_poll(wait_s, self._settings.keepalive_s, chunks, on_lost=mark_unread)

    async def cancel(self, call: Call) -> Answer:
        job = await self._queue.cancel(call.endpoint, call.segments[0])
        return json_reply(wire.render_view(job))

    async def retry(self, call: Call) -> Answer:
        job = await self._queue.retry(call.endpoint, call.segments[0])
        return json_reply(wire.render_submitted(job.id))

    async def purge_queue(self, call: Call) -> Answer:
        removed = await self._queue.purge(call.endpoint)
        return json_reply(b'{"removed":%d,"status":"completed"}' % removed)

    async def health(self, call: Call) -> Answer:
        jobs, workers = self._queue.jobs.index.counts(call.endpoint), self._queue.workers.counts(call.endpoint)
        return json_reply(msgspec.json.encode({"jobs": jobs, "workers": workers}, order="sorted"))

    async def _submission(self, call: Call, limit: int) -> Submission:
        submission = wire.parse_submission(await call.request.read_body(limit), self._settings)
        if submission.webhook is not None:
            check_webhook(submission.webhook, private=self._settings.webhooks.private)
        return submission

    async def _view(self, call: Call, job_id: str) -> Reply:
        job = await self._queue.get(call.endpoint, job_id)
        return json_reply(await render_job(self._queue, job, timings=_timings(call)))

    def _wait(self, call: Call, default_s: float) -> float:
        return wire.parse_milliseconds("wait", call.query.get("wait"), default_s, self._settings.wait_bounds_ms)


class FileRoutes:
    """`/v2/{endpoint}/files/{job}/{token}/{name}` (docs/extensions.md)."""

    def __init__(self, files: FolderFiles, jobs: Jobs, limit: int) -> None:
        self._files = files
        self._jobs = jobs
        self._limit = limit

    def table(self) -> dict[str, Route]:
        """The routes by verb. Reading needs no key: the URL holds the token."""
        return {"files": Route(self.file, ("GET", "HEAD", "PUT"), segments=3, public=("GET", "HEAD"))}

    async def file(self, call: Call) -> Answer:
        """Store a file, or send it."""
        job_id, token, name = call.segments
        named = FileName(job_id=job_id, token=token, name=name)
        return await (self._put(call, named) if call.request.method == "PUT" else self._get(named))

    async def _put(self, call: Call, named: FileName) -> Answer:
        job = self._jobs.get(named.job_id)
        if job is None or job.endpoint != call.endpoint:
            raise JobNotFound
        content_type = call.header("Content-Type") or DEFAULT_TYPE
        await self._files.put(named, content_type, call.request.body_pieces(self._limit), limit=self._limit)
        return json_reply(b"{}")

    async def _get(self, named: FileName) -> Answer:
        stored = await self._files.open(named)
        if stored is None:
            raise RouteNotFound("file not found")
        inline = stored.content_type.startswith(_INLINE_TYPES)
        headers = {
            **SERVE_HEADERS,
            "Content-Type": stored.content_type,
            "Content-Disposition": content_disposition("inline" if inline else "attachment", named.name),
        }
        return FileReply(headers, stored.path)


async def render_job(queue: JobQueue, job: Job, *, timings: bool = False, webhook: bool = False) -> bytes:
    """Return the job as its caller sees it, or with `webhook` as its receiver does."""
    if job.status is Status.IN_QUEUE:
        return wire.render_view(job)
    request, output = await queue.jobs.body("requests", job.id), await queue.jobs.body("outputs", job.id)
    return wire.render_view(
        job,
        source=wire.stored_input(request) if request else None,
        output=output,
        timings=queue.reports.timings(job.id) if timings else None,
        webhook=webhook,
    )


async def render_webhook(queue: JobQueue, job_id: str) -> bytes | None:
    """Return the body of the job's webhook (protocol A.8); None if the job has not ended, or runs again."""
    job = await queue.jobs.get_committed(job_id)
    if job is None or not job.final:
        return None
    return await render_job(queue, job, webhook=True)


def _stream_view(read: StreamRead) -> bytes:
    """The reply to /stream; the final status comes only with the last chunk or after it."""
    status = read.job.status if read.drained or not read.job.final else Status.IN_PROGRESS
    return wire.render_stream(read.job, status, read.chunks)


def _timings(call: Call) -> bool:
    return call.query.get("timings") == "true"


def check_webhook(url: str, *, private: bool) -> None:
    """Refuse a webhook that could never be delivered. Names are looked up when it is sent, and checked again then.

    Raises:
        BadRequest: it is not an http(s) URL, or names a private address.
    """
    try:
        host = net.check_url(url).host or ""
    except ValueError as exc:
        raise BadRequest(f"webhook: {exc}") from exc
    try:
        ipaddress.ip_address(host)
    except ValueError:
        is_private = host.rstrip(".").lower() == "localhost"
    else:
        is_private = not net.is_public(host)
    if is_private and not private:
        raise BadRequest(f"webhook: {host} is not a public address")
