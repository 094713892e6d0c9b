"""What was said, as lines that can be compared and read: what differs from run to run is taken out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from .recording import Answers, Request

LONG = 160
"""Longer bodies are shown by their beginning, length and hash."""

Lines = list[str]
View = Callable[[list[Request]], Lines]


def lines(said: list[Request]) -> list[str]:
    """One line for each request."""
    return [_line(one) for one in said] or ["nothing"]


def _line(said: Request) -> str:
    query = f"?{said.query}" if said.query else ""
    body = "" if said.body is None else f" {_shortened(_json(_calm(said.body)))}"
    return f"{said.method} {said.path}{query}{body}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shortened(text: str) -> str:
    if len(text) <= LONG or '"error"' in text:
        return text
    return f"{text[:40]}… {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _calm(body: Any) -> Any:
    """The body, with tracebacks cut to their last line, and without our own version."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return body
    error = body["error"]
    if error.startswith("handler: ") and " \ntraceback: " in error:
        head, _, traceback = error.partition(" \ntraceback: ")
        return {**body, "error": f"{head} \ntraceback: … {_last_line(traceback)}"}
    try:
        told = json.loads(error)
    except ValueError:
        return body
    if not isinstance(told, dict) or "error_traceback" not in told:
        return body
    told["error_traceback"] = f"… {_last_line(told['error_traceback'])}"
    if "runpod_worker_version" in told:
        told["runpod_worker_version"] = "…"
    return {**body, "error": told}  # it is a string of JSON; shown as what it holds


def _last_line(traceback: str) -> str:
    return traceback.strip().splitlines()[-1]


def _burst(said: list[Request]) -> list[str]:
    """How many updates are sent is a matter of time with us, and in which order with the SDK."""
    progress = [one for one in said if one.body.get("status") == "IN_PROGRESS"]
    final = [one for one in said if one not in progress]
    count = "all 8 updates, in any order, before or after the result" if len(progress) == 8 else "the latest updates"
    ordered = [one.body["output"] for one in progress]
    if count == "the latest updates" and (ordered != sorted(ordered) or said[-1:] != final):
        count = "updates out of order"
    return [count, *lines(final)]


VIEWS: dict[str, View] = {"progress-burst": _burst}


def views(answers: Answers) -> dict[str, list[str]]:
    """The lines of every case."""
    return {case: VIEWS.get(case, lines)(said) for case, said in answers.items()}
