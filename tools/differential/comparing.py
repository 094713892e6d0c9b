"""Renders requests as lines that can be compared and read, without the parts that differ from run to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from .recording import Answers, Request

MAX_BODY_CHARS = 160
"""Longer bodies are shown by their beginning, length and hash."""

Lines = list[str]
View = Callable[[list[Request]], Lines]


def lines(requests: list[Request]) -> list[str]:
    """One line for each request."""
    return [_line(request) for request in requests] or ["nothing"]


def _line(request: Request) -> str:
    query = f"?{request.query}" if request.query else ""
    body = "" if request.body is None else f" {_truncated(_json(_normalized(request.body)))}"
    return f"{request.method} {request.path}{query}{body}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _truncated(text: str) -> str:
    if len(text) <= MAX_BODY_CHARS or '"error"' in text:
        return text
    return f"{text[:40]}… {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _normalized(body: Any) -> Any:
    """The body, with tracebacks reduced to their last line, and without our own version."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return body
    error = body["error"]
    if error.startswith("handler: ") and " \ntraceback: " in error:
        head, _, traceback = error.partition(" \ntraceback: ")
        return {**body, "error": f"{head} \ntraceback: … {_last_line(traceback)}"}
    try:
        described = json.loads(error)
    except ValueError:
        return body
    if not isinstance(described, dict) or "error_traceback" not in described:
        return body
    described["error_traceback"] = f"… {_last_line(described['error_traceback'])}"
    if "runpod_worker_version" in described:
        described["runpod_worker_version"] = "…"
    return {**body, "error": described}  # on the wire a string of JSON; parsed, it is easier to read


def _last_line(traceback: str) -> str:
    return traceback.strip().splitlines()[-1]


def _burst(requests: list[Request]) -> list[str]:
    """Ignore what depends on timing: the number of our updates, and the order of the SDK's."""
    progress = [request for request in requests if request.body.get("status") == "IN_PROGRESS"]
    final = [request for request in requests if request not in progress]
    count = "all 8 updates, in any order, before or after the result" if len(progress) == 8 else "the latest updates"
    values = [request.body["output"] for request in progress]
    if count == "the latest updates" and (values != sorted(values) or requests[-1:] != final):
        count = "updates out of order"
    return [count, *lines(final)]


VIEWS: dict[str, View] = {"progress-burst": _burst}


def views(answers: Answers) -> dict[str, list[str]]:
    """The lines of every case."""
    return {case: VIEWS.get(case, lines)(requests) for case, requests in answers.items()}
