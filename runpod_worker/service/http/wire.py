"""Parses request bodies and renders replies. The user's JSON passes through as bytes, never decoded.

1. Parsing raises only `BadRequest`, for any bytes.
2. Views have their keys in alphabetical order, and no key without a value (protocol A.5).
"""

from __future__ import annotations

import json
import math
from typing import TypeVar

import msgspec

from runpod_worker.core.errors import BadRequest
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.core.nesting import check_depth
from runpod_worker.service.queue.assign import ReleasedJob
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
    """A body of /run and /runsync; other keys are ignored."""

    input: msgspec.Raw = _ABSENT
    webhook: str | None = None
    policy: PolicyBody | None = None
    s3Config: msgspec.Raw = _ABSENT  # noqa: N815


class ResultBody(msgspec.Struct):
    """A body of job-done. Values may have any type: old workers send surprising ones."""

    output: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT
    status: msgspec.Raw = _ABSENT
    stopPod: msgspec.Raw = _ABSENT  # noqa: N815
    stopped: msgspec.Raw = _ABSENT
    timings: msgspec.Raw = _ABSENT
    seq: msgspec.Raw = _ABSENT


class ChunkBody(msgspec.Struct):
    """A body of job-stream: one chunk, or several with the number of the first."""

    output: msgspec.Raw = _ABSENT
    outputs: list[msgspec.Raw] | None = None
    index: int | None = None


class ReleaseBody(msgspec.Struct):
    """A body of job-return."""

    takes: list[str] = []
    jobs: list[ReleasedJob] = []


_encode = msgspec.json.Encoder().encode


def parse_submission(body: bytes, settings: ServiceSettings) -> Submission:
    """The request in `body`, within the limits of `settings`."""
    body, fields = _decode(SubmitBody, body, nan_to_null=False)
    source = bytes(fields.input)
    if not source:
        raise BadRequest('input: missing; the body must be a JSON object like {"input": {...}}')
    return Submission(
        body=body,
        input=source,
        s3_config=bytes(fields.s3Config),
        webhook=fields.webhook or None,
        policy=_policy(fields.policy or PolicyBody(), settings),
    )


def parse_stored(body: bytes) -> SubmitBody:
    """The request, which `parse_submission` has accepted before."""
    return msgspec.json.decode(body, type=SubmitBody)


def stored_input(body: bytes) -> bytes | None:
    """The input of a stored request; None if it cannot be read, so that its job can still be shown."""
    try:
        return bytes(parse_stored(body).input)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _policy(policy: PolicyBody, settings: ServiceSettings) -> Policy:
    return Policy(
        execution_timeout_ms=_within(
            "policy.executionTimeout",
            policy.executionTimeout,
            settings.execution_timeout_bounds_ms,
            settings.execution_timeout_ms,
        ),
        ttl_ms=_within("policy.ttl", policy.ttl, settings.ttl_bounds_ms, settings.ttl_ms),
        low_priority=policy.lowPriority,
    )


def _within(field: str, value: int | None, bounds: tuple[int, int], default: int) -> int:
    if value is None:
        return default
    if not bounds[0] <= value <= bounds[1]:
        raise BadRequest(f"{field}: expected milliseconds from {bounds[0]} to {bounds[1]}, got {value}")
    return value


def parse_report(body: bytes, *, streamed: bool = False) -> Report:
    """The report in the body of a job-done. `streamed`: it ends a generator, so an empty list means no output."""
    _, fields = _decode(ResultBody, body, nan_to_null=True)
    output = None if fields.output is _ABSENT else bytes(fields.output)
    if streamed and output == b"[]":
        output = None
    return Report(
        progress=fields.status is not _ABSENT and bytes(fields.status) == b'"IN_PROGRESS"',
        stopped=fields.stopped is not _ABSENT and bytes(fields.stopped) == b"true",
        output=output,
        error=None if fields.error is _ABSENT else _error_text(bytes(fields.error)),
        stop_pod=fields.stopPod is not _ABSENT and bytes(fields.stopPod) not in _FALSY,
        timings=None if fields.timings is _ABSENT else bytes(fields.timings),
        seq=None if fields.seq is _ABSENT else _number(bytes(fields.seq)),
    )


def _error_text(raw: bytes) -> str | None:
    """The error as a string, as callers expect it. A value of another type becomes its JSON (protocol G.10)."""
    if raw in _FALSY:
        return None
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()


def _number(raw: bytes) -> int | None:
    return int(raw) if raw.isdigit() and len(raw) < 19 else None


def parse_chunks(body: bytes) -> tuple[list[bytes], int | None]:
    """The chunks in the body of a job-stream, and the number of the first if the worker numbers them."""
    _, fields = _decode(ChunkBody, body, nan_to_null=True)
    if fields.outputs is not None:
        if fields.index is None or fields.index < 0:
            raise BadRequest(f"index: expected the number of the first chunk, got {fields.index}")
        return [bytes(output) for output in fields.outputs], fields.index
    if not bytes(fields.output):
        raise BadRequest("output: missing; the body must be a JSON object with output, or outputs and index")
    return [bytes(fields.output)], fields.index


def parse_release(body: bytes) -> ReleaseBody:
    """The takes and jobs in the body of a job-return."""
    return _decode(ReleaseBody, body, nan_to_null=False)[1]


def _decode(kind: type[T], body: bytes, *, nan_to_null: bool) -> tuple[bytes, T]:
    """The body as standard JSON, and its fields."""
    check_depth(body, BadRequest)
    try:
        try:
            if not body.isascii():
                body.decode()  # msgspec does not look into raw values
            return body, msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError:
            raise
        except ValueError:
            body = _to_standard_json(body, nan_to_null=nan_to_null)
            return body, msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise _bad_request(exc) from exc
    except RecursionError as exc:
        raise BadRequest("body: nested too deeply") from exc


def _to_standard_json(body: bytes, *, nan_to_null: bool) -> bytes:
    """The body as standard JSON: Python workers send NaN and Infinity, JavaScript sends half surrogate pairs."""

    def reject(text: str) -> float | None:
        if nan_to_null:
            return None
        raise ValueError(f"{text} is not JSON")

    def number(text: str) -> float | None:
        value = float(text)
        return value if math.isfinite(value) else reject(text)

    try:
        value = json.loads(body, parse_constant=reject, parse_float=number)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    except ValueError as exc:
        raise BadRequest(f"body: expected JSON: {exc}") from exc


def _bad_request(exc: msgspec.ValidationError) -> BadRequest:
    """msgspec's message with the field in front: `policy.ttl: expected int, got str`."""
    message, _, path = str(exc).replace("`", "").partition(" - at ")
    return BadRequest(f"{path.removeprefix('$').lstrip('.') or 'body'}: {message[:1].lower()}{message[1:]}")


def parse_milliseconds(field: str, text: str | None, default_s: float, bounds_ms: tuple[int, int]) -> float:
    """A time in seconds from a query parameter in milliseconds, moved into its bounds."""
    if not text:
        return default_s
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 18:
        raise BadRequest(f"{field}: expected milliseconds as a whole number, got {text[:40]!r}")
    return min(max(int(text), bounds_ms[0]), bounds_ms[1]) / 1000


def parse_number(field: str, text: str | None, default: int, bounds: tuple[int, int]) -> int:
    """A whole number from a query parameter or header, moved into its bounds."""
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"{field}: expected a whole number, got {text[:40]!r}")
    return min(max(int(text), bounds[0]), bounds[1])


def _render_object(**values: object) -> bytes:
    """A JSON object of these values, without those that are None."""
    return _encode({key: value for key, value in values.items() if value is not None})


def _json(value: bytes | None) -> msgspec.Raw | None:
    """A value that is JSON already."""
    return None if value is None else msgspec.Raw(value)


def render_submitted(job_id: str) -> bytes:
    """The reply to /run and /retry."""
    return b'{"id":"%s","status":"IN_QUEUE"}' % job_id.encode()


def render_view(
    job: Job,
    *,
    source: bytes | None = None,
    output: bytes | None = None,
    timings: bytes | None = None,
    webhook: bool = False,
) -> bytes:
    """A job as its caller sees it (protocol A.5); `source` is the input, `webhook` shows its URL (A.8)."""
    waiting = job.status is Status.IN_QUEUE
    return _render_object(
        delayTime=None if waiting else job.delay_ms,
        error=job.error,
        executionTime=job.execution_ms,
        gpu=job.gpu,
        id=job.id,
        input=None if waiting else _json(source),
        output=None if waiting else _json(output),
        retries=job.retries or None,
        status=job.status,
        timings=_json(timings),
        webhook=job.webhook if webhook else None,
        workerId=job.worker,
    )


def render_stream(job: Job, status: Status, outputs: list[bytes]) -> bytes:
    """The reply to /stream."""
    stream = [{"output": msgspec.Raw(output)} for output in outputs]
    return _render_object(error=job.error if status is job.status else None, status=status, stream=stream)


def render_assignment(assigned: Assigned, *, now: float, counted: bool) -> bytes:
    """The job object that a worker gets. `counted`: with the fields of the `attempt` extension."""
    job, request = assigned.job, assigned.request
    if isinstance(request, Submission):
        source, s3_config = request.input, request.s3_config
    else:
        check_depth(request, BadRequest)  # release 0.1 accepted deeper ones
        stored = parse_stored(request)
        source, s3_config = bytes(stored.input), bytes(stored.s3Config)
    deadline, lease = job.deadline, job.lease
    extended = counted and lease is not None and deadline is not None
    return _render_object(
        # Before the input, so that a worker finds them without parsing a large input.
        attempt=job.attempt if extended else None,
        leaseMs=round((lease.until - now) * 1000) if extended and lease else None,
        timeoutMs=round((deadline - now) * 1000) if extended and deadline else None,
        id=job.id,
        input=msgspec.Raw(source),
        s3Config=_json(s3_config or None),
        webhook=job.webhook,
    )
