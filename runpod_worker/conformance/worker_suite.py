"""What the checks of a worker share: their list, their groups, and what they ask of a result."""

from __future__ import annotations

from typing import Any

from .check import Checks, need, short
from .scripted_service import Heard, Stage
from .worker_runner import WorkerSide

check: Checks[WorkerSide] = Checks()

FUNCTION, OUTAGE, STOP = "function", "function outage", "function stop"
COROUTINE, MANY = "coroutine", "coroutine x3"
GENERATOR, ASYNC_GENERATOR, AGGREGATE = "generator", "async_generator", "async_generator aggregate"
"""How the worker was started: the kind of the handler, what more is set, and which checks share one."""

SOON_S = 10.0
"""Longer than anything takes that is done at once, shorter than a long poll."""


def output_of(heard: Heard) -> Any:
    """The output in a result that is no failure."""
    body = heard.json
    need("error" not in body, f"the job failed: {short(body.get('error'))}")
    need("output" in body, f"there is no output in {short(body)}")
    return body["output"]


def error_of(heard: Heard) -> str:
    """The error in a result, which is a string."""
    error = heard.json.get("error")
    need(isinstance(error, str) and error, f"error: expected a string, got {short(error)}")
    return str(error)


async def quickly_finished(stage: Stage, job_input: Any) -> Heard:
    """The result of one more job: the worker goes on."""
    return await stage.result(stage.add(job_input))
