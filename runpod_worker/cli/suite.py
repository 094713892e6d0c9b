"""Runs the tests of worker.yaml and tests.json through a real service and worker, with a job for each test."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from runpod_worker.core.errors import JobError
from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR
from runpod_worker.workerfile import Case

if TYPE_CHECKING:
    from runpod_worker.client.aio import AsyncioClient

ENDPOINT = "test"
SHUTDOWN_TIMEOUT_S = 10.0
"""Kill the worker when it has not exited by then."""

MAX_SHOWN_CHARS = 300
"""A wrong output is cut to this length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The result of a test. `reason` says why it failed; empty when it passed."""

    name: str
    reason: str
    seconds: float


async def run_suite(handler: Path, cases: Sequence[Case], env: Mapping[str, str]) -> AsyncIterator[TestResult]:
    """Run the cases one after the other through one worker with this environment, which loads its model once.

    The time of a case begins when the worker takes its job, so it does not include loading the model.
    """
    async with _service() as url, _worker(handler, f"{url}/v2/{ENDPOINT}", env) as worker, _client(url) as client:
        for number, case in enumerate(cases, start=1):
            yield await _run(client, worker, case, case.name or f"test {number}")


def report(result: TestResult, width: int) -> str:
    """The line of a test in the table; `width` is that of the longest name."""
    mark = "FAIL" if result.reason else "ok"
    line = f"{mark:<4}  {result.name:<{width}}  {result.seconds:>8.3f} s"
    return f"{line}  {result.reason}".rstrip()


def summary(results: Sequence[TestResult]) -> str:
    """The last line of the table."""
    failed = sum(bool(result.reason) for result in results)
    return f"{len(results) - failed} of {len(results)} passed"


def judge(case: Case, view: Mapping[str, Any]) -> str:
    """Why a test with this final view failed; empty when it passed.

    Only a COMPLETED job passes.
    """
    if view["status"] != "COMPLETED":
        error = str(view.get("error", ""))
        if error == EXECUTION_TIMEOUT_ERROR:
            return f"timed out after {case.timeout:g} s"
        return f"{view['status']} {_why(error)}".strip()
    if case.output is UNSET or same(case.output, view.get("output")):
        return ""
    return f"expected {_shown(case.output)}, got {_shown(view.get('output'))}"


def same(value: object, other: object) -> bool:
    """Whether two JSON values are equal. In Python True equals 1, in JSON it does not."""
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(same(item, other[key]) for key, item in value.items())
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(same, value, other))
    return isinstance(value, bool) == isinstance(other, bool) and value == other


async def _run(client: AsyncioClient, worker: asyncio.subprocess.Process, case: Case, name: str) -> TestResult:
    timeout_ms = max(1, round(case.timeout * 1000))
    body = {"input": case.input, "policy": {"executionTimeout": timeout_ms}}
    running = asyncio.ensure_future(_last_view(client, body))
    died = asyncio.ensure_future(worker.wait())
    try:
        await asyncio.wait((running, died), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return TestResult(name=name, reason=f"the worker ended with status {died.result()}", seconds=0.0)
        view = running.result()
        return TestResult(name=name, reason=judge(case, view), seconds=view.get("executionTime", 0) / 1000)
    finally:
        for task in (running, died):
            task.cancel()
        await asyncio.gather(running, died, return_exceptions=True)


async def _last_view(client: AsyncioClient, body: Any) -> Mapping[str, Any]:
    from runpod_worker.client.aio import AsyncioJob

    job_id = await client.perform(client.calls.submit(ENDPOINT, body))
    job = AsyncioJob(ENDPOINT, job_id, None, client=client)
    try:
        await job.output(timeout=None)
    except JobError as error:
        return error.job
    return await job.view()


@asynccontextmanager
async def _service() -> AsyncIterator[str]:
    from runpod_worker.service.server import Server, open_stores
    from runpod_worker.service.settings import ServiceSettings

    settings = ServiceSettings(port=0, execution_timeout_bounds_ms=(1, 7 * 86_400_000))
    server = Server(settings, open_stores(settings))
    try:
        await server.start()
        yield server.url
    finally:
        await server.close()


@asynccontextmanager
async def _worker(handler: Path, target: str, env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-u", "-m", "runpod_worker", "run", str(handler), "--url", target, "--log-level", "WARN"]
    worker = await asyncio.create_subprocess_exec(*command, env=env, start_new_session=True)
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.terminate()
        try:
            await asyncio.wait_for(worker.wait(), SHUTDOWN_TIMEOUT_S)
        except TimeoutError:
            worker.kill()
            await worker.wait()


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[AsyncioClient]:
    from runpod_worker.client.aio import AsyncioClient

    client = AsyncioClient(f"{url}/v2", {"Content-Type": "application/json"})
    try:
        yield client
    finally:
        await client.close()


def _why(error: str) -> str:
    """The message of an error. An exception of a handler is JSON in a string (protocol B.6)."""
    try:
        described = json.loads(error)
    except ValueError:
        described = None
    if isinstance(described, dict) and "error_message" in described:
        return f"{described.get('error_type', '')}: {described['error_message']}"
    return " ".join(_lines(error))


def _lines(error: str) -> Iterator[str]:
    for line in error.splitlines()[-3:]:
        yield line.strip()


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}… ({len(text)} characters)"
