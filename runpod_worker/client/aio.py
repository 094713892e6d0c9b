"""`AsyncioEndpoint` and `AsyncioJob`: `Endpoint` and `Job` for asyncio."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TypeVar

import aiohttp
from yarl import URL

import runpod_worker
from runpod_worker.core.errors import LinkDown

from .access import access, proxy_for, require_id, require_url
from .calls import Calls, View
from .exchange import Flow, Json, NoReply, NotSent, Pause, Reply, Request, Step
from .handles import JobHandle

T = TypeVar("T")

LARGE_BYTES = 1 << 20
"""Larger bodies are sent in pieces."""


class AsyncioClient:
    """Performs calls with an aiohttp session, by default one of its own."""

    def __init__(self, base_url: str, headers: Mapping[str, str], session: aiohttp.ClientSession | None = None) -> None:
        self.calls = Calls()
        self._base_url = base_url
        self._proxy = proxy_for(base_url)
        self.headers = dict(headers)
        self._session = session
        self._own = session is None

    async def perform(self, flow: Flow[T]) -> T:
        """Perform the steps of a call and return its result."""
        result: Reply | Exception | None = None
        while True:
            try:
                step = flow.throw(result) if isinstance(result, Exception) else flow.send(result)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            result = await self._perform_step(step)

    async def _perform_step(self, step: Step) -> Reply | Exception | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._exchange(step)
        except (NotSent, NoReply) as error:  # the logic decides what follows
            return error

    async def _exchange(self, request: Request) -> Reply:
        try:
            return await self._send(request)
        except aiohttp.ClientConnectorCertificateError as error:
            raise LinkDown(f"{error.host}:{error.port} cannot be trusted: {error.certificate_error}") from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotSent(f"{self._base_url} did not accept the connection in time") from error
        except aiohttp.ClientConnectorError as error:
            raise NotSent(str(error)) from error
        except TimeoutError as error:
            raise NoReply(f"no reply within {request.timeout_s:.3g} s", timed_out=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(f"the connection broke ({error!r})") from error

    async def _send(self, request: Request) -> Reply:
        async with self._open_session().request(
            request.method,
            URL(f"{self._base_url}/{request.path}", encoded=True),
            data=_payload(request.body),
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=request.timeout_s),
            allow_redirects=False,
            raise_for_status=False,  # `replies` interprets refusals; overrides the session's default
            proxy=self._proxy,
        ) as response:
            body = await response.read()
            return Reply(response.status, body, {name.lower(): value for name, value in response.headers.items()})

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session

    async def close(self) -> None:
        """Close the session, unless it is the caller's."""
        if self._own and self._session is not None:
            await self._session.close()
            self._session = None


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """A large body as a file, which aiohttp sends in pieces; a single write would block the event loop."""
    return body if body is None or len(body) < LARGE_BYTES else io.BytesIO(body)


class AsyncioJob(JobHandle):
    """A job of an endpoint; its methods are those of `Job`.

    Requests use `session` and `headers`, which include `Authorization`.
    """

    def __init__(
        self,
        endpoint_id: str,
        job_id: str,
        session: aiohttp.ClientSession | None,
        headers: Mapping[str, str] | None = None,
        *,
        client: AsyncioClient | None = None,
    ) -> None:
        if client is None:
            own_headers = access().headers if headers is None else headers
            client = AsyncioClient(require_url(runpod_worker.endpoint_url_base), own_headers, session)
        super().__init__(endpoint_id, job_id, client.calls)
        self.session = session
        self.headers = client.headers
        self._client = client

    async def status(self) -> str:
        """Return the job's status."""
        return await self._client.perform(self._status())

    async def view(self) -> View:
        """Return the view of the job."""
        return await self._client.perform(self._view())

    async def output(self, timeout: float | None = 0) -> Json:
        """Return the output, after waiting up to `timeout` seconds for the end of the job; None waits without limit."""
        return await self._client.perform(self._output(timeout))

    async def stream(self) -> AsyncIterator[Json]:
        """Yield the chunks of the job as they arrive, until it has completed."""
        early = 0
        while True:
            chunks, early = await self._client.perform(self._chunks(early))
            if not chunks:
                return
            for chunk in chunks:
                yield chunk

    async def cancel(self, timeout: float = 10) -> View:
        """Cancel the job, and return the service's reply."""
        return await self._client.perform(self._cancel(timeout))

    async def retry(self, timeout: float = 3) -> View:
        """Run a job again that failed or timed out, and return the service's reply."""
        return await self._client.perform(self._retry(timeout))


class AsyncioEndpoint:
    """An endpoint; its methods are those of `Endpoint`.

    Without `session` it makes an aiohttp session of its own; close that with `async with` or `close()`.

    Example:
        >>> async with runpod_worker.AsyncioEndpoint("ENDPOINT_ID") as endpoint:
        ...     await endpoint.run_sync({"prompt": "a red circle"})
    """

    def __init__(
        self, endpoint_id: str, session: aiohttp.ClientSession | None = None, api_key: str | None = None
    ) -> None:
        self.endpoint_id = require_id(endpoint_id, "endpoint_id")
        service = access(api_key)
        self.session = session
        self.headers = service.headers
        self.endpoint_url_base = service.base_url
        self.endpoint_url = f"{service.base_url}/{self.endpoint_id}/run"
        self._client = AsyncioClient(service.base_url, service.headers, session)

    async def __aenter__(self) -> AsyncioEndpoint:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session, unless it is the caller's."""
        await self._client.close()

    async def run(self, endpoint_input: Json) -> AsyncioJob:
        """Submit a job and return it without waiting; `Endpoint.run` describes `endpoint_input`."""
        return self.job(await self._client.perform(self._client.calls.submit(self.endpoint_id, endpoint_input)))

    async def run_sync(self, endpoint_input: Json, timeout: float | None = 86400) -> Json:
        """Submit a job, wait for its end and return its output."""
        return await self._client.perform(self._client.calls.run_sync(self.endpoint_id, endpoint_input, timeout))

    def job(self, job_id: str) -> AsyncioJob:
        """Return a handle of the job with this id, without a request."""
        return AsyncioJob(self.endpoint_id, job_id, self.session, self.headers, client=self._client)

    async def health(self, timeout: float = 3) -> View:
        """Return the numbers of jobs and workers."""
        return await self._client.perform(self._client.calls.health(self.endpoint_id, timeout))

    async def purge_queue(self, timeout: float = 3) -> View:
        """Cancel the jobs that are IN_QUEUE; the reply has their number."""
        return await self._client.perform(self._client.calls.purge_queue(self.endpoint_id, timeout))
