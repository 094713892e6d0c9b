"""`/v2/{endpoint}/openai/...`: runs requests of OpenAI clients as jobs of the endpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from functools import partial

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job, Status
from runpod_worker.service.http import openai_replies as openai
from runpod_worker.service.http import wire
from runpod_worker.service.http.replies import UNBUFFERED, Answer, Reply, StreamReply, long_poll, render_head
from runpod_worker.service.http.requests import Call, Route, cancel_on_disconnect
from runpod_worker.service.queue.queue import JobQueue, StreamRead

_SSE_HEADERS = {"Content-Type": openai.SSE, **UNBUFFERED}


class OpenAIRoutes:
    """The routes of OpenAI clients. A caller that hangs up cancels its job, because only this request knows the id."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._settings = queue.settings

    def table(self) -> dict[str, Route]:
        """The only verb. The handler interprets the path behind it."""
        return {"openai": Route(self.answer, ("GET", "POST"), segments=None, refusal=openai.refused)}

    async def answer(self, call: Call) -> Answer:
        """Reply with the handler's answer: one body, or a stream of events as they come."""
        body = await call.request.read_body(self._settings.max_runsync_bytes)
        body, stream = openai.job_body("/" + "/".join(call.segments), body)
        job = await self._queue.submit(call.endpoint, wire.parse_submission(body, self._settings), sync=True)
        try:
            return await cancel_on_disconnect(call.request, self._stream(job) if stream else self._whole(job))
        except BaseException:
            await self._cancel(job)
            raise

    async def _cancel(self, job: Job) -> None:
        # The job ended, and its retention too, before a slow reader got everything.
        with contextlib.suppress(JobNotFound):
            await self._queue.cancel(job.endpoint, job.id)

    async def _whole(self, job: Job) -> Answer:
        async def body(timeout_s: float | None) -> Reply | None:
            ended = await self._queue.wait_end(job.id, timeout_s or 0)
            return await self._body(job) if ended is not None or self._queue.draining else None

        return await long_poll(math.inf, self._settings.keepalive_s, body, on_lost=partial(self._cancel, job))

    async def _body(self, job: Job) -> Reply:
        job = await self._queue.get(job.endpoint, job.id)
        if not job.final:
            await self._cancel(job)
            return openai.failure("the service is going down; try again", status=503, kind="overloaded_error")
        if job.status is not Status.COMPLETED:
            return openai.ended_badly(job)
        return openai.whole(openai.pieces(await self._queue.jobs.body("outputs", job.id)) or self._queue.chunks(job.id))

    async def _stream(self, job: Job) -> Answer:
        """Wait for the first chunk before sending the status, so that an earlier failure gets its own status."""
        read = await self._next(job)
        if read.chunks and (error := openai.error_in(read.chunks[0])) is not None:
            await self._cancel(job)
            return error
        if read.chunks or not (read.job.final or self._queue.draining):
            return StreamReply(_SSE_HEADERS, self._events(job, read), on_lost=partial(self._cancel, job))
        if read.job.status is not Status.COMPLETED:
            return await self._body(read.job)
        # The handler returned instead of yielding.
        pieces = openai.pieces(await self._queue.jobs.body("outputs", job.id))
        if not pieces:
            return openai.failure("the job has no output")
        if (error := openai.error_in(pieces[0])) is not None:
            return error
        return Reply(200, render_head(_SSE_HEADERS), b"".join([openai.event(piece) for piece in pieces]))

    async def _events(self, job: Job, read: StreamRead) -> AsyncIterator[bytes]:
        attempt = 0
        while True:
            attempt = attempt or (read.job.attempt if read.chunks else 0)
            end = self._end_of_stream(read, attempt)
            if read.chunks and read.job.attempt == attempt:
                yield b"".join([openai.event(chunk) for chunk in read.chunks])
            elif end is None:
                yield b": the handler has yielded nothing for a while\n\n"
            if end is not None:
                await self._cancel(job)
                yield end
                return
            read = await self._next(job)

    async def _next(self, job: Job) -> StreamRead:
        return await self._queue.read_stream(job.endpoint, job.id, self._settings.keepalive_s)

    def _end_of_stream(self, read: StreamRead, attempt: int) -> bytes | None:
        """The last bytes of a stream that has ended; None while it continues."""
        job = read.job
        if attempt and (job.attempt != attempt or job.status is Status.IN_QUEUE):
            return _error_event("the worker was lost in the middle of its answer", 502)
        if job.final and read.drained:
            return b"" if job.status is Status.COMPLETED else openai.event(openai.ended_badly(job).content)
        if self._queue.draining and not job.final:
            return _error_event("the service is going down", 503)
        return None


def _error_event(message: str, status: int) -> bytes:
    return openai.event(openai.failure(message, status=status).content)
