"""The list, the groups and the common steps of the checks of a worker."""

from __future__ import annotations

from typing import Any

from .check import Checks, require, truncate
from .scripted_service import ScriptedService, WorkerRequest
from .worker_runner import WorkerUnderTest

check: Checks[WorkerUnderTest] = Checks()

FUNCTION, OUTAGE, LONG_OUTAGE = "function", "function outage", "function long outage"
STOP, PINGS = "function stop", "function pings"
COROUTINE, MANY = "coroutine", "coroutine x3"
GENERATOR, ASYNC_GENERATOR, AGGREGATE = "generator", "async_generator", "async_generator aggregate"
"""How the worker is started: the kind of handler, then its settings. Checks of one group share a worker."""

SOON_S = 10.0
"""Longer than any immediate action takes, shorter than a long poll."""


def output_of(report: WorkerRequest) -> Any:
    """The output of a successful result."""
    body = report.json
    require("error" not in body, f"the job failed: {truncate(body.get('error'))}")
    require("output" in body, f"expected an output, got {truncate(body)}")
    return body["output"]


def error_of(report: WorkerRequest) -> str:
    """The error of a failed result: a string."""
    error = report.json.get("error")
    require(isinstance(error, str) and error, f"error: expected a string, got {truncate(error)}")
    return str(error)


async def run_job(service: ScriptedService, job_input: Any) -> WorkerRequest:
    """Submit a job and return its result."""
    return await service.final_report(service.submit(job_input))
