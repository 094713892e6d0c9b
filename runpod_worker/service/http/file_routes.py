"""Output files: workers PUT them, and every caller that knows the URL may GET them."""

from __future__ import annotations

from runpod_worker.core.errors import JobNotFound
from runpod_worker.service.files import DEFAULT_TYPE, SERVE_HEADERS, FileName, FolderFiles
from runpod_worker.service.http.replies import Answer, FileReply, json_reply
from runpod_worker.service.http.routing import Call, Route, RouteNotFound
from runpod_worker.service.queue.jobs import Jobs

_INLINE_TYPES = ("image/", "video/", "audio/")
"""Types that a browser may show in place; any other is offered as a download."""


class FileRoutes:
    """`/v2/{endpoint}/files/{job}/{token}/{name}` (docs/extensions.md)."""

    def __init__(self, files: FolderFiles, jobs: Jobs, limit: int) -> None:
        self._files = files
        self._jobs = jobs
        self._limit = limit

    def table(self) -> dict[str, Route]:
        """The routes by verb. Reading needs no key: the URL holds the token."""
        return {"files": Route(self.file, "GET", "HEAD", "PUT", segments=3, public=("GET", "HEAD"))}

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
            "Content-Disposition": f'{"inline" if inline else "attachment"}; filename="{named.name}"',
        }
        return FileReply(headers, stored.path)
