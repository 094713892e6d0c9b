"""Turns replies of the job service into views or errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from runpod_worker.core.errors import (
    BacklogFull,
    BadRequest,
    EndpointNotFound,
    IllegalTransition,
    JobCancelled,
    JobError,
    JobFailed,
    JobNotFound,
    JobTimedOut,
    LinkDown,
    ServiceRefusal,
    StoreUnavailable,
    TooLarge,
    Unauthorized,
)
from runpod_worker.core.job import Status
from runpod_worker.core.lifecycle import FINAL
from runpod_worker.core.nesting import MAX_REPLY_DEPTH, check_depth

from .exchange import Json, Reply

KEY_ADVICE = "set runpod_worker.api_key or RUNPOD_API_KEY to a key of the endpoint's account"

MAX_RETRY_AFTER_S = 60.0
"""A longer `Retry-After` is cut to this."""

NOT_DONE = frozenset({408, 429, 503})
"""Statuses of requests that the service did not perform, so that any of them may be repeated."""

_REFUSALS: dict[int, type[ServiceRefusal]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Unauthorized,
    409: IllegalTransition,
    413: TooLarge,
    422: BadRequest,
    429: BacklogFull,
    503: StoreUnavailable,
}

_JOB_ERRORS: dict[str, type[JobError]] = {
    Status.FAILED: JobFailed,
    Status.CANCELLED: JobCancelled,
    Status.TIMED_OUT: JobTimedOut,
}


def decode_json(reply: Reply, where: str) -> Json:
    """Return the JSON of a reply.

    Raises:
        LinkDown: the body is not JSON, or is nested too deep.
    """
    check_depth(reply.body, LinkDown, MAX_REPLY_DEPTH)
    try:
        return msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        pass
    try:
        return json.loads(reply.body)  # accepts NaN, which old workers send
    except ValueError as error:
        raise LinkDown(f"{where}: expected JSON from the job service, got {_excerpt(reply)}") from error


def parse_view(reply: Reply, where: str) -> dict[str, Json]:
    """Return the view in a reply.

    Raises:
        LinkDown: the body is not a view.
    """
    view = decode_json(reply, where)
    if not isinstance(view, dict) or not isinstance(view.get("status"), str):
        raise LinkDown(f"{where}: expected a job with a status from the job service, got {_excerpt(reply)}")
    return view


def final(view: dict[str, Json]) -> bool:
    """Whether the job has ended."""
    return view.get("status") in FINAL


def job_error(view: dict[str, Json]) -> JobError | None:
    """The error of a job that ended but did not complete, else None."""
    kind = _JOB_ERRORS.get(view["status"])
    if kind is None:
        return None
    ending = {JobFailed: "failed", JobCancelled: "was cancelled", JobTimedOut: "timed out"}[kind]
    reason = _reason(view.get("error"))
    return kind(f"job {view.get('id', '?')} {ending}{': ' + reason if reason else ''}", view)


def _reason(error: Json) -> str:
    """A job's error as one readable line. Workers send an exception as JSON in a string (protocol B.6)."""
    if not error:
        return ""
    try:
        packed = json.loads(error) if isinstance(error, str) else error
    except (ValueError, RecursionError):
        return str(error)
    if not isinstance(packed, dict) or "error_message" not in packed:
        return str(error)
    kind = str(packed.get("error_type", "")).removeprefix("<class '").removesuffix("'>")
    return f"{kind}: {packed['error_message']}" if kind else str(packed["error_message"])


def refusal(reply: Reply, where: str, job_id: str | None) -> ServiceRefusal:
    """The error for a reply with an error status."""
    detail = _detail(reply)
    error = _refusal_class(reply.status, detail, job_id)(f"{where}: {_explain(reply, detail, job_id)}")
    error.status = reply.status
    return error


def _refusal_class(status: int, detail: str, job_id: str | None) -> type[ServiceRefusal]:
    if status == 404:
        return EndpointNotFound if job_id is None or "endpoint" in detail.lower() else JobNotFound
    if status == 400 and "exceeded max body size" in detail:
        return TooLarge
    return _REFUSALS.get(status, ServiceRefusal)


def _explain(reply: Reply, detail: str, job_id: str | None) -> str:
    answer = f"{reply.status} {detail}"
    if reply.status in (401, 403):
        return f"the job service does not accept the API key ({answer}); {KEY_ADVICE}"
    if reply.status == 404 and job_id is not None and "endpoint" not in detail.lower():
        return f"no job {job_id}, or its retention has ended ({answer})"
    if reply.status == 404:
        return f"no such endpoint ({answer}); check the endpoint id and runpod_worker.endpoint_url_base"
    if 300 <= reply.status < 400:
        target = reply.headers.get("location", "elsewhere")
        return f"redirected to {target} ({reply.status}); check runpod_worker.endpoint_url_base"
    return f"the job service refuses ({answer})"


def _detail(reply: Reply) -> str:
    """The `detail` or `error` of the envelope (protocol A.1), or the start of the body."""
    try:
        body = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError):
        return _excerpt(reply)
    if isinstance(body, dict):
        for key in ("detail", "error", "title", "message"):
            if body.get(key):
                return str(body[key])[:500]
    return _excerpt(reply)


def _excerpt(reply: Reply) -> str:
    text = reply.body[:200].decode(errors="replace").strip()
    return repr(text) if text else "an empty body"


def retry_after(reply: Reply) -> float:
    """Seconds to wait before the next try, from `Retry-After`, at most `MAX_RETRY_AFTER_S`; 0 without that header."""
    wanted_s = _retry_after(reply.headers)
    return min(max(0.0, wanted_s), MAX_RETRY_AFTER_S) if math.isfinite(wanted_s) else 0.0


def _retry_after(headers: Mapping[str, str]) -> float:
    header = headers.get("retry-after", "").strip()
    try:
        return float(header)
    except ValueError:
        pass
    try:  # a date, compared with the service's clock
        until, at = parsedate_to_datetime(header), parsedate_to_datetime(headers.get("date", ""))
        return (until - at).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0
