"""The link from a worker to a job service: RunPod's protocol over HTTP, with the extensions that the service offers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.values import Assignment, AttemptRef, TakeRequest
from runpod_worker.core.errors import BodyRefused, LinkBusy, LinkDown, LinkRefused
from runpod_worker.core.nesting import MAX_REPLY_DEPTH, check_depth
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
from runpod_worker.log import log
from runpod_worker.worker.link.decode import assignments
from runpod_worker.worker.link.transport import Reply, Transport
from runpod_worker.worker.link.urls import Urls, file_url

LONG_POLL_TIMEOUT_S = 95.0
"""A long poll fails after this time. Its caller cancels it sooner."""

REPORT_TIMEOUT_S = 120.0
"""A report fails after this time, which is enough for 20 MB over a slow connection."""

HEARTBEAT_TIMEOUT_S = 10.0

MAX_RETRY_AFTER_S = 60.0
"""A longer `Retry-After` counts as this, so that no reply can delay a report for hours."""

# The header names in lower case, as replies have them.
_EXTENSIONS, _FILES_URL, _STALE_NAME = X_EXTENSIONS.lower(), X_FILES_URL.lower(), X_STALE.lower()
_FILES_MAX_BYTES = X_FILES_MAX_BYTES.lower()


class ReportReply(NamedTuple):
    """The reply to a report. `stale`: this worker no longer holds the attempt."""

    stale: bool = False
    jobs: tuple[Assignment, ...] = ()


class HttpLink:
    """The job service as a worker sees it.

    Every call may raise LinkDown (no reply, 5xx: try again later), LinkBusy (429, the same), BodyRefused (the service
    refused the content: do not repeat it) or LinkRefused (another 4xx: perhaps a wrong key or a proxy). A call may be
    cancelled at any time. The caller retries.

    `extensions`: the names of docs/extensions.md that the service offered in its reply to the latest heartbeat.
    `files_url`: the URL for files; None if the service does not offer `files`. `max_file_bytes`: the service refuses
    larger files; None if it does not say.
    """

    def __init__(self, settings: WorkerSettings, transport: Transport) -> None:
        self._transport = transport
        self._urls = Urls(settings)
        self._authorization = {"Authorization": settings.api_key} if settings.api_key else {}
        self.extensions: frozenset[str] = frozenset()
        self.files_url: str | None = None
        self.max_file_bytes: int | None = None
        self._has_greeted = False
        self._headers: dict[str, str] = {}
        self._offer: dict[str, str] = {}
        self._numbered: dict[int, dict[str, str]] = {}
        self._use_extensions(frozenset())

    @property
    def endpoint(self) -> str:
        """The part that the outcome URLs of all workers of this endpoint have in common."""
        return self._urls.endpoint

    async def take(self, request: TakeRequest, *, busy: bool) -> Sequence[Assignment]:
        """Wait for jobs as long as the service holds the request (at most 90 s). Empty: no job yet."""
        headers: Mapping[str, str] = self._headers
        if "return" in self.extensions:
            headers = {**headers, X_TAKE_ID: request.id}
        url = self._urls.take(request.max_jobs, busy)
        reply = await self._transport.send("GET", url, headers, None, LONG_POLL_TIMEOUT_S)
        if reply.status in (204, 400):  # 400: "expected when FlashBoot is enabled" (protocol B.4)
            return ()
        return self._jobs(_checked(reply))

    async def poll_stops(self) -> Sequence[AttemptRef]:
        """Wait for attempts to stop. Empty: none yet. A number of None means the attempt that is held.

        Raises:
            LinkRefused: also when the service has no such route.
        """
        if self._urls.stop is None:
            raise LinkRefused("the job-take URL has no part /job-take/: this worker cannot poll for stops", status=404)
        reply = _checked(await self._transport.send("GET", self._urls.stop, self._headers, None, LONG_POLL_TIMEOUT_S))
        if reply.status == 204 or not reply.body:
            return ()
        check_depth(reply.body, LinkDown, MAX_REPLY_DEPTH)
        try:
            stops = _stops.decode(reply.body)
        except msgspec.MsgspecError as error:
            raise LinkDown(f"job-stop: expected a list of jobs to stop: {error}") from error
        job_ids = stops.jobsToStop
        numbers = stops.attempts if len(stops.attempts) == len(job_ids) else [None] * len(job_ids)
        pairs = zip(job_ids, numbers, strict=True)
        return [AttemptRef(job_id, number) for job_id, number in pairs if isinstance(job_id, str)]

    async def heartbeat(self, job_ids: Collection[str]) -> frozenset[str] | None:
        """Report that this worker is alive and holds these jobs. Many jobs take several requests.

        Return those on which it has a lease; None: the service does not tell.
        """
        if self._urls.ping is None:
            return None
        replies = [await self._heartbeat(url) for url in self._urls.heartbeats(job_ids)]
        leased = [reply.leased for reply in replies if reply.leased is not None]
        return frozenset().union(*leased) if len(leased) == len(replies) else None

    async def _heartbeat(self, url: str) -> _HeartbeatReply:
        reply = _checked(await self._transport.send("GET", url, self._offer, None, HEARTBEAT_TIMEOUT_S))
        self._has_greeted = True
        offered = frozenset(reply.headers.get(_EXTENSIONS, "").split()) & EXTENSIONS
        self.files_url = reply.headers.get(_FILES_URL) if "files" in offered else None
        max_bytes = reply.headers.get(_FILES_MAX_BYTES, "")
        self.max_file_bytes = int(max_bytes) if max_bytes.isascii() and max_bytes.isdigit() else None
        if offered != self.extensions:
            self._use_extensions(offered)
        try:
            return _heartbeat_reply.decode(reply.body)
        except msgspec.MsgspecError:  # RunPod's protocol says nothing about the body
            return _HeartbeatReply()

    async def report_unhealthy(self, check: str, reason: str) -> None:
        """Report that this worker failed a fitness check and will not take jobs."""
        if self._urls.ping is None:
            return
        url = self._urls.unhealthy(check, reason)
        _checked(await self._transport.send("GET", url, self._headers, None, HEARTBEAT_TIMEOUT_S))

    async def finish(
        self,
        attempt: AttemptRef,
        body: bytes,
        *,
        is_stream: bool = False,
        take: TakeRequest | None = None,
        worker_id: str | None = None,
    ) -> ReportReply:
        """Report the outcome (a JSON object).

        `take`: the reply may contain the next jobs; only if the service offers `take`. `worker_id`: the worker that ran
        the attempt, by default this worker.
        """
        headers = self._headers_of(attempt)
        if take is not None:
            headers = {**headers, X_TAKE: str(take.max_jobs), X_TAKE_ID: take.id}
        return await self._report(self._urls.done(attempt.job_id, is_stream, worker_id), headers, body)

    async def report_progress(self, attempt: AttemptRef, value: bytes, number: int) -> ReportReply:
        """Report the latest progress value (JSON), the `number`-th of this attempt."""
        sequence = b',"seq":%d' % number if "attempt" in self.extensions and attempt.number is not None else b""
        body = b'{"status":"IN_PROGRESS","output":%b%b}' % (value, sequence)
        return await self._report(self._urls.done(attempt.job_id, False), self._headers_of(attempt), body)

    async def report_chunks(self, attempt: AttemptRef, index: int, outputs: Sequence[bytes]) -> ReportReply:
        """Report consecutive chunks (JSON each), the first with this index. Several only with extension `chunks`."""
        if "chunks" in self.extensions:
            body = b'{"outputs":[%b],"index":%d}' % (b",".join(outputs), index)
        else:
            body = b'{"output":%b}' % outputs[0]
        return await self._report(self._urls.stream(attempt.job_id), self._headers_of(attempt), body)

    async def release(self, take_ids: Sequence[str], attempts: Sequence[AttemptRef]) -> None:
        """Release these attempts, and all jobs of these takes. Only if the service offers `return`."""
        jobs = [
            {"id": ref.job_id, "attempt": ref.number, **({"take": ref.take_id} if ref.take_id else {})}
            for ref in attempts
        ]
        body = msgspec.json.encode({"takes": take_ids, "jobs": jobs})
        _checked(await self._transport.send("POST", self._urls.release, self._headers, body, REPORT_TIMEOUT_S))

    async def store_file(self, job_id: str, token: str, name: str, content_type: str, body: bytes) -> None:
        """Store one output file.

        Raises:
            BodyRefused: also if the service does not offer `files`.
            LinkRefused: also if no heartbeat has succeeded yet.
        """
        if self.files_url is None:
            refused = BodyRefused if self._has_greeted else LinkRefused
            raise refused("the job service stores no files", status=404)
        url = file_url(self.files_url, job_id, token, name)
        headers = {**self._headers, "Content-Type": content_type}
        _checked(await self._transport.send("PUT", url, headers, body, REPORT_TIMEOUT_S))

    def reset(self) -> None:
        """Close the connections now, those in use too: their requests fail with LinkDown."""
        self._transport.reset()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def _report(self, url: str, headers: Mapping[str, str], body: bytes) -> ReportReply:
        reply = _checked(await self._transport.send("POST", url, headers, body, REPORT_TIMEOUT_S))
        stale = bool(self.extensions) and reply.headers.get(_STALE_NAME) == "1"
        return ReportReply(stale, tuple(self._jobs(reply)) if X_TAKE in headers else ())

    def _jobs(self, reply: Reply) -> list[Assignment]:
        return assignments(reply.body, extended="attempt" in self.extensions) if reply.status == 200 else []

    def _use_extensions(self, names: frozenset[str]) -> None:
        """Use these extensions from now on. Without any, reports equal the reference SDK's byte for byte."""
        self.extensions = names
        common = {**self._authorization, "User-Agent": "runpod-worker", "Accept": "*/*"}
        if names:
            self._headers = {**common, X_EXTENSIONS: " ".join(sorted(names)), "Content-Type": "application/json"}
            log.info("link.negotiated", extra={"extensions": sorted(names)})
        else:
            plain = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
            self._headers = {**common, **plain}
        # A heartbeat names the extensions in use, if any. Its reply offers the service's own, so an upgrade is noticed.
        self._offer = common if not names else {**common, X_EXTENSIONS: " ".join(sorted(names))}
        self._numbered = {}

    def _headers_of(self, attempt: AttemptRef) -> Mapping[str, str]:
        if attempt.number is None or "attempt" not in self.extensions:
            return self._headers
        headers = self._numbered.get(attempt.number)
        if headers is None:
            headers = self._numbered[attempt.number] = {**self._headers, X_ATTEMPT: str(attempt.number)}
        return headers


class _Stops(msgspec.Struct):
    jobsToStop: list[object] = []  # noqa: N815 - the wire's name
    attempts: list[int | None] = []


_stops = msgspec.json.Decoder(_Stops)


class _Envelope(msgspec.Struct):
    """An error of RunPod's API (protocol A.1). A proxy's error has another form."""

    status: int
    detail: str


_envelope = msgspec.json.Decoder(_Envelope)

BODY_STATUSES = frozenset({400, 413, 422})
"""Statuses that refuse the content of a request, if the job service sends them and no proxy does."""


def _refuses_body(reply: Reply) -> bool:
    try:
        return reply.status in BODY_STATUSES and _envelope.decode(reply.body).status == reply.status
    except msgspec.MsgspecError:
        return False


class _HeartbeatReply(msgspec.Struct):
    leased: dict[str, int] | None = None


_heartbeat_reply = msgspec.json.Decoder(_HeartbeatReply)


def _checked(reply: Reply) -> Reply:
    if 200 <= reply.status < 300:
        return reply
    text = f"{reply.status}: {reply.body[:2000].decode('utf-8', 'replace')}"
    if reply.status == 429:
        raise LinkBusy(text, _seconds(reply.headers.get("retry-after")))
    if reply.status >= 500 or reply.status == 408:
        raise LinkDown(text)
    raise (BodyRefused if _refuses_body(reply) else LinkRefused)(text, status=reply.status)


def _seconds(value: str | None) -> float:
    """The seconds of `Retry-After`; 0 without the header, and for anything but digits."""
    if not value or not (value.isascii() and value.isdigit()):  # `isdigit` alone accepts "²"
        return 0.0
    return min(float(value), MAX_RETRY_AFTER_S)
