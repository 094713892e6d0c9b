"""Output files: workers PUT them, everyone who knows the URL may GET them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from runpod_worker.core.errors import JobNotFound, TooLarge
from runpod_worker.service.files import DEFAULT_TYPE, SERVE_HEADERS, FileName, FileStore
from runpod_worker.service.http.requests import Answer, Call, Route, RouteNotFound, allow_body, reply
from runpod_worker.service.journal.port import Store

_SHOWN = ("image/", "video/", "audio/")
"""Types a browser may show in place; everything else is offered for download."""


class FileRoutes:
    """`/v2/{endpoint}/files/{job}/{token}/{name}` (docs/extensions.md)."""

    def __init__(self, files: FileStore, store: Store, limit: int) -> None:
        self._files = files
        self._store = store
        self._limit = limit

    def table(self) -> dict[str, Route]:
        """The routes by verb. Reading needs no key: the URL holds the token."""
        return {"files": Route(self.file, "GET", "HEAD", "PUT", segments=3, public=("GET", "HEAD"))}

    async def file(self, call: Call) -> Answer:
        """Keep a file, or send it."""
        job_id, token, name = call.rest
        named = FileName(job_id=job_id, token=token, name=name)
        return await (self._put(call, named) if call.request.method == "PUT" else self._get(named))

    async def _put(self, call: Call, named: FileName) -> Answer:
        job = self._store.get(named.job_id)
        if job is None or job.endpoint != call.endpoint:
            raise JobNotFound
        if (call.request.content_length or 0) > self._limit:
            raise TooLarge.over(self._limit)
        await allow_body(call.request)
        content_type = call.header("Content-Type") or DEFAULT_TYPE
        await self._files.put(named, content_type, _pieces(call.request), limit=self._limit)
        return reply(b"{}")

    async def _get(self, named: FileName) -> Answer:
        stored = await self._files.open(named)
        if stored is None:
            raise RouteNotFound("file not found")
        shown = stored.content_type.startswith(_SHOWN)
        headers = {
            **SERVE_HEADERS,
            "Content-Type": stored.content_type,
            "Content-Disposition": f'{"inline" if shown else "attachment"}; filename="{named.name}"',
        }
        return web.FileResponse(stored.path, headers=headers)


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece
