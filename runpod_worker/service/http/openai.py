"""`/v2/{endpoint}/openai/...`: any OpenAI client's requests as jobs of the endpoint."""

from __future__ import annotations

import contextlib

from aiohttp import web

from runpod_worker.core.errors import JobNotFound, ServiceRefusal
from runpod_worker.core.job import Job, Status
from runpod_worker.service.http import openai_replies as openai
from runpod_worker.service.http import wire
from runpod_worker.service.http.disconnect import unless_gone
from runpod_worker.service.http.requests import Answer, Call, Reply, Route, body, head, nothing
from runpod_worker.service.queue.queue import Read, Service

GET, POST = "GET", "POST"


class OpenAIRoutes:
    """Requests as OpenAI's clients send them. One whose caller hangs up is cancelled: nobody else knows its job."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings

    def table(self) -> dict[str, Route]:
        """The one verb; what follows it is the handler's business."""
        return {"openai": Route(self.answer, GET, POST, segments=None, refusal=_refusal)}

    async def answer(self, call: Call) -> Answer:
        """What the handler makes of the request: one body, or a stream of events as they come."""
        asked, stream = openai.job_body(
            "/" + "/".join(call.rest), await body(call.request, self._settings.max_runsync_bytes)
        )
        job = await self._service.submit(call.endpoint, wire.submission(asked, self._settings), sync=True)
        answering = self._stream(call, job) if stream else self._whole(call, job)
        try:
            answer = await unless_gone(call.request, answering)
        finally:
            await self._give_up(job)
        return nothing() if answer is None else answer

    async def _give_up(self, job: Job) -> None:
        """Nobody will hear more of this job."""
        with contextlib.suppress(JobNotFound):  # it ended long ago, before a slow reader had all of it
            await self._service.cancel(job.endpoint, job.id)

    async def _whole(self, call: Call, job: Job) -> Answer:
        keepalive_s = self._settings.keepalive_s
        ended = await self._service.ended(job.id, keepalive_s)
        if ended is not None or self._service.draining:
            return _reply(await self._body(job))
        response = await _begun(call, openai.JSON)
        while ended is None and not self._service.draining:
            await response.write(b" ")  # JSON allows it, and nothing in between takes the connection for dead
            ended = await self._service.ended(job.id, keepalive_s)
        await response.write((await self._body(job))[2])
        await response.write_eof()
        return response

    async def _body(self, job: Job) -> tuple[int, str, bytes]:
        job = await self._service.job(job.endpoint, job.id)
        if not job.final:
            return openai.failure("the service is going down; try again", status=503, kind="overloaded_error")
        if job.status is not Status.COMPLETED:
            return openai.ended_badly(job)
        return openai.whole(openai.pieces(await self._service.output(job.id)) or self._service.chunks(job.id))

    async def _stream(self, call: Call, job: Job) -> Answer:
        """The status waits for the first chunk, so that a request that fails before it gets a fitting one."""
        read = await self._next(job)
        if not read.chunks and (read.job.final or self._service.draining):
            return await self._unstreamed(call, read.job)
        response = await _begun(call, openai.SSE)
        attempt = 0
        while True:
            attempt = attempt or (read.job.attempt if read.chunks else 0)
            end = self._end_of_stream(read, attempt)
            if read.chunks and read.job.attempt == attempt:
                await response.write(b"".join([openai.event(chunk) for chunk in read.chunks]))
            elif end is None:
                await response.write(b": the handler has yielded nothing for a while\n\n")
            if end is not None:
                await response.write(end)
                await response.write_eof()
                return response
            read = await self._next(job)

    async def _next(self, job: Job) -> Read:
        return await self._service.read(job.endpoint, job.id, self._settings.keepalive_s)

    def _end_of_stream(self, read: Read, attempt: int) -> bytes | None:
        """The last bytes of a stream that ends here; None when it goes on."""
        job = read.job
        if attempt and (job.attempt != attempt or job.status is Status.IN_QUEUE):
            return _error_event("the worker was lost in the middle of its answer", 502)
        if job.final and read.drained:
            return b"" if job.status is Status.COMPLETED else openai.event(openai.ended_badly(job)[2])
        if self._service.draining and not job.final:
            return _error_event("the service is going down", 503)
        return None

    async def _unstreamed(self, call: Call, job: Job) -> Answer:
        """The reply to a request for a stream of which there is none: the handler returned, or it failed."""
        if job.status is not Status.COMPLETED:
            return _reply(await self._body(job))
        response = await _begun(call, openai.SSE)
        for piece in openai.pieces(await self._service.output(job.id)):
            await response.write(openai.event(piece))
        await response.write_eof()
        return response


def _error_event(message: str, status: int) -> bytes:
    return openai.event(openai.failure(message, status=status)[2])


async def _begun(call: Call, content_type: str) -> web.StreamResponse:
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    return response


def _reply(answer: tuple[int, str, bytes]) -> Reply:
    status, content_type, content = answer
    return Reply(status, head({"Content-Type": content_type}), content)


def _refusal(exc: ServiceRefusal) -> Reply:
    return _reply(openai.refused(exc))
