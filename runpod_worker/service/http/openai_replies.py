"""Turns OpenAI requests into jobs, and the outputs and errors of these jobs into replies (protocol D.6).

1. The input of the job is `{"openai_route": "/v1/...", "openai_input": <body>}`, without a body only the route.
2. Strings that the handler yields are concatenated to the bytes of the reply. Any other value is sent as
   JSON: as the whole body, or as an event of a stream.
3. An error is `{"error": {"message", "type", "param", "code"}}` with the right HTTP status. It keeps the
   values of the handler, without any traceback.
"""

from __future__ import annotations

import ast
import contextlib
import json
from typing import Any

import msgspec

from runpod_worker.core.errors import BadRequest, ServiceRefusal
from runpod_worker.core.job import FailureKind, Job, Status
from runpod_worker.service.http.replies import JSON, Reply, render_head

SSE = "text/event-stream"
TEXT = "text/plain; charset=utf-8"

MAX_LITERAL_CHARS = 64 * 1024
"""RunPod's SDK sends an error as Python's repr of a dict. Longer ones are not parsed, and become the message."""

_TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_STATUS_OF_TYPE = {kind: status for status, kind in _TYPE_OF_STATUS.items() if status != 405} | {
    "badrequesterror": 400,
    "notfounderror": 404,
    "timeout_error": 504,
}
_ENCODE = msgspec.json.Encoder().encode


class _Options(msgspec.Struct):
    stream: Any = None


def job_body(route: str, body: bytes) -> tuple[bytes, bool]:
    """The body of a /run for this request, and whether the request wants a stream.

    Raises:
        BadRequest: the body is not a JSON object.
    """
    if not body.strip():
        return b'{"input":{"openai_route":%s}}' % _ENCODE(route), False
    try:
        stream = msgspec.json.decode(body, type=_Options).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"body: expected a JSON object: {exc}") from exc
    return b'{"input":{"openai_route":%s,"openai_input":%s}}' % (_ENCODE(route), body), stream


def event(chunk: bytes) -> bytes:
    """A JSON chunk as bytes of an event stream: a string unchanged, another value as an event."""
    if chunk.startswith(b'"'):
        return msgspec.json.decode(chunk, type=str).encode()
    reply = error_in(chunk)
    return b"data: " + (chunk if reply is None else reply.content) + b"\n\n"


def error_in(chunk: bytes) -> Reply | None:
    """The reply for a JSON chunk that is an error, in OpenAI's form or vLLM's; None for any other chunk."""
    if not chunk.startswith(b"{") or b'error"' not in chunk:
        return None
    value = msgspec.json.decode(chunk)
    described = value.get("error") if value.get("object") != "error" else value.get("error", value)
    return _failure(described, _status(described)) if isinstance(described, dict) else None


def pieces(output: bytes | None) -> list[bytes]:
    """The chunks of a job that did not stream: the items of its output, or the output."""
    if output is None:
        return []
    if output.startswith(b"["):
        return [bytes(item) for item in msgspec.json.decode(output, type=list[msgspec.Raw])]
    return [output]


def whole(chunks: list[bytes]) -> Reply:
    """A whole reply from all chunks."""
    if not chunks:
        return failure("the job has no output")
    is_text = chunks[0].startswith(b'"')
    content = b"".join([event(chunk) for chunk in chunks if chunk.startswith(b'"')]) if is_text else chunks[0]
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # JSON in a string may be nested at will
        kind = (SSE if content.startswith(b"data:") else TEXT) if is_text else JSON
        return _reply(200, kind, content)
    if is_text and not isinstance(value, dict | list):
        return _reply(200, TEXT, content)
    return _reply(_status_within(value), JSON, content)


def _reply(status: int, content_type: str, content: bytes) -> Reply:
    return Reply(status, render_head({"Content-Type": content_type}), content)


def _status_within(value: Any) -> int:
    """The status for an output: that of its error, if it contains one, else 200."""
    if not isinstance(value, dict):
        return 200
    if isinstance(value.get("error"), dict):
        return _status(value["error"])
    return _status(value) if value.get("object") == "error" else 200


def ended_badly(job: Job) -> Reply:
    """The reply for a job that ended but did not complete."""
    if job.status is Status.CANCELLED:
        return failure("the job was cancelled", status=410, kind="cancelled")
    error = job.error or "the ttl of the job has passed"
    if job.status is Status.TIMED_OUT or job.failure is FailureKind.EXECUTION_TIMEOUT:
        return failure(error, status=504, kind="timeout_error")
    if job.failure is FailureKind.WORKER_LOST:
        return failure(f"the worker was lost: {error}", status=502, kind="worker_error")
    described = _describe(error)
    return _failure(described, _status(described))


def refused(exc: ServiceRefusal) -> Reply:
    """The reply for a refused request."""
    kind = _TYPE_OF_STATUS.get(exc.status, "server_error")
    code = "invalid_api_key" if exc.status == 401 else None
    return _failure({"message": str(exc), "type": kind, "code": code}, exc.status)


def failure(message: str, *, status: int = 500, kind: str = "server_error") -> Reply:
    """The reply for an error of the service."""
    return _failure({"message": message, "type": kind}, status)


def _failure(described: dict[str, Any], status: int) -> Reply:
    error = {
        "message": str(described.get("message") or "the job failed"),
        "type": str(described.get("type") or "worker_error"),
        "param": described.get("param"),
        "code": described.get("code"),
    }
    return _reply(status, JSON, _ENCODE({"error": error}))


def _describe(error: str) -> dict[str, Any]:
    """Parse a job's error: JSON from our worker, or from RunPod's SDK a Python repr, JSON or a text with a traceback.

    The forms are in protocol B.6 and E.21.
    """
    value = _dict_of(error)
    if value is None:
        message = error.removeprefix("handler: ").partition(" \ntraceback: ")[0]
        return {"message": message if message.strip() else error}
    if isinstance(value.get("error"), dict):
        value = value["error"]
    if "error_message" in value:
        kind = str(value.get("error_type", "")).removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        return {"message": f"{kind}: {value['error_message']}".removeprefix(": ")}
    if not value.get("message"):
        return {**value, "message": error}
    return value


def _dict_of(error: str) -> dict[str, Any] | None:
    if not error.startswith("{"):
        return None
    for parse in (json.loads, ast.literal_eval) if len(error) <= MAX_LITERAL_CHARS else (json.loads,):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            value = parse(error)
            return value if isinstance(value, dict) else None
    return None


def _status(described: dict[str, Any]) -> int:
    """The HTTP status that the error names, or the status of its type."""
    for key in ("status", "status_code", "code"):
        value = described.get(key)
        number = int(value) if isinstance(value, str) and value.isdigit() and len(value) == 3 else value
        if isinstance(number, int) and number in _KNOWN:
            return number
    return _STATUS_OF_TYPE.get(str(described.get("type", "")).lower(), 500)


_KNOWN = frozenset({400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 501, 502, 503, 504})
