"""What OpenAI requests become as jobs, and what the jobs' outputs and errors become as replies (protocol D.6).

1. A job's input is `{"openai_route": "/v1/...", "openai_input": <the request's body>}`; without a body the route alone.
2. Strings that the handler yields are the reply's bytes, put together verbatim. Other values are JSON: one is a whole
   body, or in a stream one event.
3. An error is `{"error": {"message", "type", "param", "code"}}` with a fitting HTTP status. What the handler says of it
   is kept; a traceback never leaves the service.
"""

from __future__ import annotations

import ast
import json
from typing import Any

import msgspec

from runpod_worker.core.errors import BadRequest, ServiceRefusal
from runpod_worker.core.job import FailureKind, Job, Status

JSON = "application/json"
SSE = "text/event-stream"
TEXT = "text/plain; charset=utf-8"

LITERAL_LIMIT = 64 * 1024
"""An error of the reference SDK is Python's repr of a dict; longer ones are not read, only shown."""

_STATUS_OF_TYPE = {
    "authentication_error": 401,
    "badrequesterror": 400,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "notfounderror": 404,
    "overloaded_error": 503,
    "permission_error": 403,
    "rate_limit_error": 429,
    "timeout_error": 504,
}
_TYPE_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_ENCODE = msgspec.json.Encoder().encode


class _Asked(msgspec.Struct):
    stream: Any = None


_asked = msgspec.json.Decoder(_Asked)


def job_body(route: str, body: bytes) -> tuple[bytes, bool]:
    """The body of a /run with this request in it, and whether the request asks for a stream.

    Raises:
        BadRequest: the request's body is no JSON object.
    """
    if not body.strip():
        return b'{"input":{"openai_route":%s}}' % _ENCODE(route), False
    try:
        stream = _asked.decode(body).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"body: expected a JSON object: {exc}") from exc
    return b'{"input":{"openai_route":%s,"openai_input":%s}}' % (_ENCODE(route), body), stream


def event(chunk: bytes) -> bytes:
    """A chunk (JSON) as bytes of an event stream: a string as it is, anything else as an event of its own."""
    if not chunk.startswith(b'"'):
        return b"data: " + chunk + b"\n\n"
    try:
        return msgspec.json.decode(chunk, type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError):  # half a surrogate pair
        text: str = json.loads(chunk)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def pieces(output: bytes | None) -> list[bytes]:
    """What a job without chunks would have yielded: the items of its output, or the output itself."""
    if output is None:
        return []
    if output.startswith(b"["):
        return [bytes(one) for one in msgspec.json.decode(output, type=list[msgspec.Raw])]
    return [output]


def whole(chunks: list[bytes]) -> tuple[int, str, bytes]:
    """Status, content type and body of a reply that is no stream, from all that the handler gave."""
    if not chunks:
        return failure("the job has no output")
    if not chunks[0].startswith(b'"'):
        return _status_within(chunks[0]), JSON, chunks[0]
    text = b"".join([event(one) for one in chunks if one.startswith(b'"')])
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 200, SSE if text.startswith(b"data:") else TEXT, text
    return (_status_within(text), JSON, text) if isinstance(value, dict | list) else (200, TEXT, text)


def _status_within(body: bytes) -> int:
    """The status of a body that a handler gave as its output, although it is an error."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return 200
    if not isinstance(value, dict):
        return 200
    if isinstance(value.get("error"), dict):
        return _status(value["error"])
    return _status(value) if value.get("object") == "error" else 200


def ended_badly(job: Job) -> tuple[int, str, bytes]:
    """Status, content type and body for a job that has ended and is not COMPLETED."""
    if job.status is Status.CANCELLED:
        return failure("the job was cancelled", status=410, kind="cancelled")
    error = job.error or "the job's time to live is over"
    if job.status is Status.TIMED_OUT or job.failure is FailureKind.EXECUTION_TIMEOUT:
        return failure(error, status=504, kind="timeout_error")
    if job.failure is FailureKind.WORKER_LOST:
        return failure(f"the worker was lost: {error}", status=502, kind="worker_error")
    told = _told(error)
    return _failure(told, _status(told))


def refused(exc: ServiceRefusal) -> tuple[int, str, bytes]:
    """Status, content type and body for a request that the service refuses."""
    kind = _TYPE_OF_STATUS.get(exc.status, "server_error")
    code = "invalid_api_key" if exc.status == 401 else None
    return _failure({"message": str(exc), "type": kind, "code": code}, exc.status)


def failure(message: str, *, status: int = 500, kind: str = "server_error") -> tuple[int, str, bytes]:
    """Status, content type and body of an error of our own."""
    return _failure({"message": message, "type": kind}, status)


def _failure(told: dict[str, Any], status: int) -> tuple[int, str, bytes]:
    error = {
        "message": str(told.get("message") or "the job failed"),
        "type": str(told.get("type") or "worker_error"),
        "param": told.get("param"),
        "code": told.get("code"),
    }
    return status, JSON, _ENCODE({"error": error})


def _told(error: str) -> dict[str, Any]:
    """What a job's error says, whoever wrote it: our worker and good handlers JSON, the reference SDK a Python repr,
    for exceptions JSON of its own or a text with a traceback (protocol B.6, E.21)."""
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
    try:
        value = json.loads(error)
    except (ValueError, RecursionError):
        value = _literal(error)
    return value if isinstance(value, dict) else None


def _literal(text: str) -> Any:
    if len(text) > LITERAL_LIMIT:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _status(told: dict[str, Any]) -> int:
    """The HTTP status that an error itself names, or that suits its type."""
    for key in ("status", "status_code", "code"):
        value = told.get(key)
        number = int(value) if isinstance(value, str) and value.isdigit() and len(value) == 3 else value
        if isinstance(number, int) and number in _KNOWN:
            return number
    return _STATUS_OF_TYPE.get(str(told.get("type", "")).lower(), 500)


_KNOWN = frozenset({400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 500, 501, 502, 503, 504})
