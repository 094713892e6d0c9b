"""What request bodies mean and how replies are written. The user's JSON passes through as bytes, never decoded.

1. Decoding raises `BadRequest` and nothing else, whatever the bytes.
2. Views have their keys in alphabetical order and leave out what there is not (protocol A.5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeVar

import msgspec

from runpod_worker.core.errors import BadRequest
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.service.queue.polls import Assigned, Submission
from runpod_worker.service.queue.reports import Report
from runpod_worker.service.settings import ServiceSettings

T = TypeVar("T")

_ABSENT = msgspec.Raw(b"")
_FALSY = frozenset({b"", b"null", b'""', b"false", b"0", b"[]", b"{}"})


class PolicyBody(msgspec.Struct):
    """`policy` of a submitted body."""

    executionTimeout: int | None = None  # noqa: N815 - the wire's name
    ttl: int | None = None
    lowPriority: bool = False  # noqa: N815


class SubmitBody(msgspec.Struct):
    """What a caller posts to /run and /runsync; other keys are ignored."""

    input: msgspec.Raw = _ABSENT
    webhook: str | None = None
    policy: PolicyBody | None = None
    s3Config: msgspec.Raw = _ABSENT  # noqa: N815


class ResultBody(msgspec.Struct):
    """What a worker posts to job-done. Every value is taken as it comes: old workers send surprising types."""

    output: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    status: msgspec.Raw = _ABSENT
    stopPod: msgspec.Raw = _ABSENT  # noqa: N815
    stopped: msgspec.Raw = _ABSENT
    timings: msgspec.Raw = _ABSENT
    seq: msgspec.Raw = _ABSENT


class ChunkBody(msgspec.Struct):
    """What a worker posts to job-stream: one chunk, or several with the number of the first."""

    output: msgspec.Raw = _ABSENT
    outputs: list[msgspec.Raw] | None = None
    index: int | None = None


class ReturnedJob(msgspec.Struct):
    """One job that a worker gives back un-started."""

    id: str
    attempt: int | None = None
    take: str = ""


class ReturnBody(msgspec.Struct):
    """What a worker posts to job-return."""

    takes: list[str] = []
    jobs: list[ReturnedJob] = []


_submit = msgspec.json.Decoder(SubmitBody)
_result = msgspec.json.Decoder(ResultBody)
_chunk = msgspec.json.Decoder(ChunkBody)
_return = msgspec.json.Decoder(ReturnBody)
_encode = msgspec.json.Encoder().encode


def submission(body: bytes, settings: ServiceSettings) -> Submission:
    """The request in `body`, within the limits of `settings`."""
    body, asked = _decode(_submit, body, nan_to_null=False)
    source = bytes(asked.input)
    if not source:
        raise BadRequest('input: missing; the body must be a JSON object like {"input": {...}}')
    return Submission(
        body=body,
        input=source,
        s3_config=bytes(asked.s3Config),
        webhook=asked.webhook or None,
        policy=_policy(asked.policy, settings) if asked.policy else _default_policy(settings),
    )


@lru_cache(16)
def _default_policy(settings: ServiceSettings) -> Policy:
    return _policy(PolicyBody(), settings)


def stored_request(body: bytes) -> SubmitBody:
    """The request as `submission` accepted it before."""
    return _submit.decode(body)


def _policy(asked: PolicyBody, settings: ServiceSettings) -> Policy:
    return Policy(
        execution_timeout_ms=_within(
            "policy.executionTimeout",
            asked.executionTimeout,
            settings.execution_timeout_bounds_ms,
            settings.execution_timeout_ms,
        ),
        ttl_ms=_within("policy.ttl", asked.ttl, settings.ttl_bounds_ms, settings.ttl_ms),
        low_priority=asked.lowPriority,
    )


def _within(field: str, value: int | None, bounds: tuple[int, int], default: int) -> int:
    if value is None:
        return default
    if not bounds[0] <= value <= bounds[1]:
        raise BadRequest(f"{field}: expected milliseconds from {bounds[0]} to {bounds[1]}, got {value}")
    return value


def report(body: bytes, *, streamed: bool = False) -> Report:
    """What the body of a job-done says. `streamed`: it ends a generator, whose empty list means no output."""
    _, said = _decode(_result, body, nan_to_null=True)
    output = None if said.output is _ABSENT else bytes(said.output)
    if streamed and output == b"[]":
        output = None
    return Report(
        progress=said.status is not _ABSENT and bytes(said.status) == b'"IN_PROGRESS"',
        stopped=said.stopped is not _ABSENT and bytes(said.stopped) == b"true",
        output=output,
        error=None if said.error is _ABSENT else _error_text(bytes(said.error)),
        stop_pod=said.stopPod is not _ABSENT and bytes(said.stopPod) not in _FALSY,
        timings=None if said.timings is _ABSENT else bytes(said.timings),
        seq=None if said.seq is _ABSENT else _number(bytes(said.seq)),
    )


def _error_text(raw: bytes) -> str | None:
    """The error as the string that callers are promised: other values are shown as their JSON (protocol G.10)."""
    if raw in _FALSY:
        return None
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()


def _number(raw: bytes) -> int | None:
    return int(raw) if raw.isdigit() and len(raw) < 19 else None


def chunks(body: bytes) -> tuple[list[bytes], int | None]:
    """The chunks in the body of a job-stream, and the number of the first if the worker counts."""
    _, said = _decode(_chunk, body, nan_to_null=True)
    if said.outputs is not None:
        if said.index is None or said.index < 0:
            raise BadRequest(f"index: expected the number of the first chunk, got {said.index}")
        return [bytes(one) for one in said.outputs], said.index
    if not bytes(said.output):
        raise BadRequest("output: missing; the body must be a JSON object with output, or outputs and index")
    return [bytes(said.output)], said.index


def returned(body: bytes) -> ReturnBody:
    """What the body of a job-return gives back."""
    return _decode(_return, body, nan_to_null=False)[1]


def _decode(decoder: msgspec.json.Decoder[T], body: bytes, *, nan_to_null: bool) -> tuple[bytes, T]:
    """The body, made standard JSON where it was not, and what is in it."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into what it passes through
        return body, decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _named(exc) from exc
    except RecursionError as exc:
        raise BadRequest("body: nested too deeply") from exc
    except ValueError:
        body = _mended(body, nan_to_null=nan_to_null)
    try:
        return body, decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _named(exc) from exc


def _mended(body: bytes, *, nan_to_null: bool) -> bytes:
    """The body as standard JSON: Python workers send NaN and Infinity, JavaScript sends half surrogate pairs."""

    def odd(text: str) -> float | None:
        if nan_to_null:
            return None
        raise ValueError(f"{text} is not JSON")

    def number(text: str) -> float | None:
        value = float(text)
        return value if math.isfinite(value) else odd(text)

    try:
        value = json.loads(body, parse_constant=odd, parse_float=number)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    except RecursionError as exc:
        raise BadRequest("body: nested too deeply") from exc
    except ValueError as exc:
        raise BadRequest(f"body: expected JSON: {exc}") from exc


def _named(exc: msgspec.ValidationError) -> BadRequest:
    """msgspec's words with the field in front: `policy.ttl: expected int, got str`."""
    what, _, path = str(exc).replace("`", "").partition(" - at ")
    return BadRequest(f"{path.removeprefix('$').lstrip('.') or 'body'}: {what[:1].lower()}{what[1:]}")


def milliseconds(field: str, text: str | None, default_s: float, bounds_ms: tuple[int, int]) -> float:
    """A time in seconds from a query parameter in milliseconds, held within its bounds."""
    if not text:
        return default_s
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 18:
        raise BadRequest(f"{field}: expected milliseconds as a whole number, got {text[:40]!r}")
    return min(max(int(text), bounds_ms[0]), bounds_ms[1]) / 1000


def number(field: str, text: str | None, default: int, bounds: tuple[int, int]) -> int:
    """A whole number from a query parameter or header, held within its bounds."""
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"{field}: expected a whole number, got {text[:40]!r}")
    return min(max(int(text), bounds[0]), bounds[1])


def joined(pairs: Iterable[tuple[str, bytes | None]]) -> bytes:
    """A JSON object of values that are JSON already; those that are None are left out."""
    return b"{" + b",".join([b'"%s":%s' % (key.encode(), value) for key, value in pairs if value is not None]) + b"}"


def text(value: str | None) -> bytes | None:
    """A string as JSON."""
    return None if value is None else _encode(value)


def _int(value: int | None) -> bytes | None:
    return None if value is None else b"%d" % value


def submitted(job_id: str) -> bytes:
    """The reply to /run and /retry."""
    return b'{"id":"%s","status":"IN_QUEUE"}' % job_id.encode()


def job_view(
    job: Job,
    *,
    source: bytes | None = None,
    output: bytes | None = None,
    timings: bytes | None = None,
    webhook: bool = False,
) -> bytes:
    """What a caller sees of a job (protocol A.5); `source` is the input, `webhook` shows its URL (A.8)."""
    waiting = job.status is Status.IN_QUEUE
    return joined(
        (
            ("delayTime", None if waiting else _int(job.delay_ms)),
            ("error", text(job.error)),
            ("executionTime", _int(job.execution_ms)),
            ("gpu", text(job.gpu)),
            ("id", b'"%s"' % job.id.encode()),
            ("input", None if waiting else source),
            ("output", None if waiting else output),
            ("retries", _int(job.retries or None)),
            ("status", b'"%s"' % job.status.encode()),
            ("timings", timings),
            ("webhook", text(job.webhook) if webhook else None),
            ("workerId", text(job.worker)),
        )
    )


def stream_view(job: Job, status: Status, outputs: list[bytes]) -> bytes:
    """The reply to /stream."""
    stream = b"[" + b",".join([b'{"output":%s}' % one for one in outputs]) + b"]"
    error = text(job.error) if status is job.status else None
    return joined((("error", error), ("status", b'"%s"' % status.encode()), ("stream", stream)))


def assignment(assigned: Assigned, *, now: float, counted: bool) -> bytes:
    """The job object that a worker gets. `counted`: with what the `attempt` extension adds."""
    job, request = assigned.job, assigned.request
    if isinstance(request, Submission):
        source, s3_config = request.input, request.s3_config
    else:
        stored = stored_request(request)
        source, s3_config = bytes(stored.input), bytes(stored.s3Config)
    deadline, lease = job.deadline, job.lease
    ahead = counted and lease is not None and deadline is not None
    return joined(
        (
            # Before the input: a worker need not read through a large one for them.
            ("attempt", _int(job.attempt) if ahead else None),
            ("leaseMs", _int(round((lease.until - now) * 1000)) if ahead and lease else None),
            ("timeoutMs", _int(round((deadline - now) * 1000)) if ahead and deadline else None),
            ("id", b'"%s"' % job.id.encode()),
            ("input", source),
            ("s3Config", s3_config or None),
            ("webhook", text(job.webhook)),
        )
    )


def error_view(status: int, title: str, detail: str) -> bytes:
    """The platform's error envelope (protocol A.1)."""
    return _encode({"status": status, "title": title, "detail": detail})
