"""A worker's link to a job service in this process. It has the same contract as the link over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from runpod_worker.config import worker_settings
from runpod_worker.core.errors import LinkDown
from runpod_worker.service.http.replies import Answer, FileReply
from runpod_worker.service.http.requests import PlainRequest
from runpod_worker.testing.service import ORIGIN, InProcessService, read_reply
from runpod_worker.worker.link.http import HttpLink
from runpod_worker.worker.link.transport import Reply


class InProcessTransport:
    """A `Transport` that calls the service: the same requests and replies, without a socket.

    As over a socket, the service finishes a request whose caller has cancelled it, and then notices that the reply is
    lost.
    """

    def __init__(self, service: InProcessService) -> None:
        self._service = service
        self._unanswered: set[asyncio.Task[Any]] = set()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Reply:
        request = PlainRequest(method, url.removeprefix(ORIGIN), headers, body or b"", origin=ORIGIN)
        answering = asyncio.create_task(self._service.handle(request))
        self._keep(answering)
        try:
            async with asyncio.timeout(timeout_s):
                return Reply(*await read_reply(await asyncio.shield(answering)))
        except (TimeoutError, asyncio.CancelledError) as error:
            request.gone.set()
            self._keep(asyncio.create_task(_report_lost(answering)))
            if isinstance(error, TimeoutError):
                raise LinkDown(f"{method} {url}: no reply within {timeout_s:g} s") from error
            raise
        except OSError as error:
            raise LinkDown(f"{method} {url}: {error}") from error

    async def close(self) -> None:
        for task in self._unanswered:
            task.cancel()
        await asyncio.gather(*self._unanswered, return_exceptions=True)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._unanswered.add(task)
        task.add_done_callback(self._unanswered.discard)


class InProcessLink(HttpLink):
    """The link of one worker to a service in this process.

    Args:
        service: the service, started.
        worker_id: the worker's id.
        settings: further settings of a worker, such as `api_key` or `gpu`.
    """

    def __init__(self, service: InProcessService, worker_id: str = "w-1", **settings: object) -> None:
        url = f"{ORIGIN}/v2/{service.endpoint}"
        super().__init__(
            worker_settings({"url": url, "worker_id": worker_id, **settings}, env={}), InProcessTransport(service)
        )


async def _report_lost(answering: asyncio.Task[Answer]) -> None:
    with contextlib.suppress(OSError):  # the service has noticed that its caller disconnected
        answer = await answering
        if not isinstance(answer, FileReply) and answer.on_lost is not None:
            await answer.on_lost()
