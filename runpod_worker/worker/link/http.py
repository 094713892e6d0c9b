"""The link over HTTP: RunPod's worker protocol, and docs/extensions.md with a service that offers them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from runpod_worker.config import WorkerSettings
from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused, SettingsError
from runpod_worker.core.protocol import (
    EXTENSIONS,
    SDK_VERSION,
    X_ATTEMPT,
    X_EXTENSIONS,
    X_FILES_URL,
    X_STALE,
    X_TAKE,
    X_TAKE_ID,
)
from runpod_worker.log import log
from runpod_worker.worker.link.port import Answer, Ask, Assignment, Attempt, assignments
from runpod_worker.worker.link.transport import Reply, Transport

HELD_S = 95.0
"""How long a held request may take; whoever asks has less patience than that (`taking.PATIENCE_S`)."""

POST_S = 120.0
"""How long a report may take; enough for 20 MB over a slow line."""

BEAT_S = 10.0

# As replies name them.
_EXTENSIONS, _FILES_URL, _STALE_NAME = X_EXTENSIONS.lower(), X_FILES_URL.lower(), X_STALE.lower()

_SAFE_ID = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


class HttpLink:
    """Keeps the contract of `Link`."""

    def __init__(self, settings: WorkerSettings, transport: Transport) -> None:
        self._transport = transport
        self._urls = _Urls(settings)
        self._authorization = {"Authorization": settings.api_key} if settings.api_key else {}
        self.extensions: frozenset[str] = frozenset()
        self.files_url: str | None = None
        self._agree(frozenset())

    @property
    def endpoint(self) -> str:
        """What all URLs of outcomes of this endpoint begin with, whichever worker they name."""
        return self._urls.endpoint

    async def take(self, ask: Ask, *, busy: bool) -> Sequence[Assignment]:
        headers: Mapping[str, str] = self._headers
        if "return" in self.extensions:
            headers = {**headers, X_TAKE_ID: ask.token}
        url = self._urls.take(ask.most, busy)
        reply = await self._transport.send("GET", url, headers, None, HELD_S)
        if reply.status in (204, 400):  # 400: "expected when FlashBoot is enabled" (protocol B.4)
            return ()
        return self._jobs(_checked(reply))

    async def stops(self) -> Sequence[Attempt]:
        if self._urls.stop is None:
            raise LinkRefused("the job-take URL has no part /job-take/: stops cannot be listened for", status=404)
        reply = _checked(await self._transport.send("GET", self._urls.stop, self._headers, None, HELD_S))
        if reply.status == 204 or not reply.body:
            return ()
        try:
            said = _stops.decode(reply.body)
        except msgspec.MsgspecError as error:
            raise LinkDown(f"job-stop answered garbage: {error}") from error
        numbers = said.attempts if len(said.attempts) == len(said.jobsToStop) else [None] * len(said.jobsToStop)
        found = zip(said.jobsToStop, numbers, strict=True)
        return [Attempt(job_id, number) for job_id, number in found if isinstance(job_id, str)]

    async def beat(self, job_ids: Collection[str]) -> None:
        if self._urls.ping is None:
            return
        reply = _checked(await self._transport.send("GET", self._urls.beat(job_ids), self._offer, None, BEAT_S))
        offered = frozenset(reply.headers.get(_EXTENSIONS, "").split()) & EXTENSIONS
        self.files_url = reply.headers.get(_FILES_URL) if "files" in offered else None
        if offered != self.extensions:
            self._agree(offered)

    async def unfit(self, check: str, reason: str) -> None:
        if self._urls.ping is None:
            return
        url = self._urls.unfit(check, reason)
        _checked(await self._transport.send("GET", url, self._headers, None, BEAT_S))

    async def finish(self, attempt: Attempt, body: bytes, *, is_stream: bool = False, ask: Ask | None = None) -> Answer:
        headers = self._of(attempt)
        if ask is not None:
            headers = {**headers, X_TAKE: str(ask.most), X_TAKE_ID: ask.token}
        return await self._report(self.target(attempt.job_id, is_stream=is_stream), headers, body)

    async def replay(self, target: str, attempt: Attempt, body: bytes) -> Answer:
        return await self._report(target, self._of(attempt), body)

    def target(self, job_id: str, *, is_stream: bool) -> str:
        return self._urls.done(job_id, is_stream)

    async def progress(self, attempt: Attempt, value: bytes, number: int) -> Answer:
        sequence = b',"seq":%d' % number if "attempt" in self.extensions and attempt.number is not None else b""
        body = b'{"status":"IN_PROGRESS","output":%b%b}' % (value, sequence)
        return await self._report(self.target(attempt.job_id, is_stream=False), self._of(attempt), body)

    async def chunks(self, attempt: Attempt, index: int, outputs: Sequence[bytes]) -> Answer:
        if "chunks" in self.extensions:
            body = b'{"outputs":[%b],"index":%d}' % (b",".join(outputs), index)
        else:
            body = b'{"output":%b}' % outputs[0]
        return await self._report(self._urls.stream(attempt.job_id), self._of(attempt), body)

    async def give_back(self, tokens: Sequence[str], attempts: Sequence[Attempt]) -> None:
        jobs = [
            {"id": one.job_id, "attempt": one.number, **({"take": one.take} if one.take else {})} for one in attempts
        ]
        body = msgspec.json.encode({"takes": tokens, "jobs": jobs})
        _checked(await self._transport.send("POST", self._urls.give_back, self._headers, body, POST_S))

    def file_target(self, job_id: str, token: str, name: str) -> str:
        if self.files_url is None:
            raise LinkRefused("the job service stores no files", status=404)
        return "/".join([self.files_url.rstrip("/"), *(quote(part, safe="") for part in (job_id, token, name))])

    async def store(self, target: str, content_type: str, body: bytes) -> None:
        headers = {**self._headers, "Content-Type": content_type}
        _checked(await self._transport.send("PUT", target, headers, body, POST_S))

    async def close(self) -> None:
        await self._transport.close()

    async def _report(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        reply = _checked(await self._transport.send("POST", url, headers, body, POST_S))
        if not self.extensions:
            return _ACCEPTED
        stale = reply.headers.get(_STALE_NAME) == "1"
        if X_TAKE in headers:
            return Answer(stale, tuple(self._jobs(reply)))
        return _STALE if stale else _ACCEPTED

    def _jobs(self, reply: Reply) -> list[Assignment]:
        return assignments(reply.body, agreed="attempt" in self.extensions) if reply.status == 200 else []

    def _agree(self, names: frozenset[str]) -> None:
        """From now on speak these extensions. Without any, posts look like the reference SDK's to the byte."""
        self.extensions = names
        common = {**self._authorization, "User-Agent": "runpod-worker", "Accept": "*/*"}
        if names:
            self._headers = {**common, X_EXTENSIONS: " ".join(sorted(names)), "Content-Type": "application/json"}
            log.info("link.agreed", extra={"extensions": sorted(names)})
        else:
            plain = {"Content-Type": "application/x-www-form-urlencoded", "charset": "utf-8"}
            self._headers = {**common, **plain}
        # Always named in a beat: a service that was exchanged for a newer one shows what it can do in the answer.
        self._offer = common if not names else {**common, X_EXTENSIONS: " ".join(sorted(names))}
        self._numbered: dict[int, dict[str, str]] = {}

    def _of(self, attempt: Attempt) -> Mapping[str, str]:
        if attempt.number is None or "attempt" not in self.extensions:
            return self._headers
        known = self._numbered.get(attempt.number)
        if known is None:
            known = self._numbered[attempt.number] = {**self._headers, X_ATTEMPT: str(attempt.number)}
        return known


_ACCEPTED = Answer()
_STALE = Answer(stale=True)


class _Stops(msgspec.Struct):
    jobsToStop: list[object] = []  # noqa: N815 - the wire's name
    attempts: list[int | None] = []


_stops = msgspec.json.Decoder(_Stops)


class _Urls:
    """Every URL rule of protocol B.2, with what can be known beforehand put together once."""

    def __init__(self, settings: WorkerSettings) -> None:
        if not settings.take_url or not settings.done_url:
            done, take = "done_url (RUNPOD_WEBHOOK_POST_OUTPUT)", "take_url (RUNPOD_WEBHOOK_GET_JOB)"
            raise SettingsError(f"{done if settings.take_url else take} is required to take jobs")
        me = settings.worker_id
        # The reference SDK replaces only $ID here; a template with $RUNPOD_POD_ID in it can mean nothing else.
        take = settings.take_url.replace("$RUNPOD_POD_ID", me).replace("$ID", me)
        self._single = [with_parameter(take, f"job_in_progress={flag}") for flag in (0, 1)]
        self._batch = take.replace("/job-take/", "/job-take-batch/") if "/job-take/" in take else None
        self.stop = take.replace("/job-take/", "/job-stop/") if "/job-take/" in take else None
        self.give_back = _without_query(take.replace("/job-take/", "/job-return/"))
        done = settings.done_url.replace("$RUNPOD_POD_ID", me)
        stream = (settings.stream_url or settings.done_url.replace("/job-done/", "/job-stream/")).replace(
            "$RUNPOD_POD_ID", me
        )
        self._done = [with_parameter(done, f"isStream={flag}") for flag in ("false", "true")]
        self.endpoint = done.partition("/job-done/")[0]
        self._stream = with_parameter(stream, "isStream=false")
        self.ping = settings.ping_url.replace("$RUNPOD_POD_ID", me) if settings.ping_url else None

    def take(self, count: int, busy: bool) -> str:
        if count <= 1 or self._batch is None:
            return self._single[busy]
        return with_parameter(self._batch, f"batch_size={count}&job_in_progress={int(busy)}")

    def done(self, job_id: str, is_stream: bool) -> str:
        return self._done[is_stream].replace("$ID", _segment(job_id))

    def stream(self, job_id: str) -> str:
        return self._stream.replace("$ID", _segment(job_id))

    def beat(self, job_ids: Collection[str]) -> str:
        url = self.ping or ""
        if job_ids:
            url = with_parameter(url, f"job_id={quote(','.join(job_ids), safe='')}")
        return with_parameter(url, f"runpod_version={SDK_VERSION}")

    def unfit(self, check: str, reason: str) -> str:
        about = {"status": "unhealthy", "check": check, "reason": reason[:256], "runpod_version": SDK_VERSION}
        return with_parameter(self.ping or "", urlencode(about))


def with_parameter(url: str, parameter: str) -> str:
    """Append a query parameter, with `&` or `?` as the URL needs it."""
    return f"{url}{'&' if '?' in url else '?'}{parameter}"


def _segment(job_id: str) -> str:
    return job_id if _SAFE_ID(job_id) else quote(job_id, safe="")


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def origin(url: str) -> str:
    """`scheme://host:port` of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _checked(reply: Reply) -> Reply:
    if 200 <= reply.status < 300:
        return reply
    text = f"{reply.status}: {reply.body[:2000].decode('utf-8', 'replace')}"
    if reply.status == 429:
        raise LinkBusy(text, _seconds(reply.headers.get("retry-after")))
    if reply.status >= 500 or reply.status == 408:
        raise LinkDown(text)
    raise LinkRefused(text, status=reply.status)


def _seconds(value: str | None) -> float:
    return float(value) if value and value.isdigit() else 0.0
