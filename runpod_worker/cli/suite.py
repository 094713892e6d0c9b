"""Runs the tests of worker.yaml and tests.json through a real service and worker, one job a test."""

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
END_S = 10.0
"""How long the worker may take to leave before it is killed."""

SHOWN = 300
"""Characters of an output that are printed when it is not the expected one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one test. `reason` is empty when it passed."""

    name: str
    reason: str
    seconds: float


async def run_suite(handler: Path, cases: Sequence[Case], env: Mapping[str, str]) -> AsyncIterator[Verdict]:
    """Run the cases one after the other through one worker, whose model is loaded once; `env` is its environment.

    A case's time begins when the worker takes its job, so that loading the model does not count.
    """
    async with _service() as url, _worker(handler, f"{url}/v2/{ENDPOINT}", env) as worker, _client(url) as client:
        for number, case in enumerate(cases, start=1):
            yield await _run(client, worker, case, case.name or f"test {number}")


def report(verdict: Verdict, width: int) -> str:
    """One test's lines in the table; `width` is that of the longest name."""
    word = "FAIL" if verdict.reason else "ok"
    line = f"{word:<4}  {verdict.name:<{width}}  {verdict.seconds:>8.3f} s"
    return f"{line}  {verdict.reason}".rstrip()


def summary(verdicts: Sequence[Verdict]) -> str:
    """The last line of the table."""
    failed = sum(bool(one.reason) for one in verdicts)
    return f"{len(verdicts) - failed} of {len(verdicts)} passed"


def judge(case: Case, view: Mapping[str, Any]) -> str:
    """Why the test with this last view has failed, nothing when it passed.

    Only COMPLETED passes: a job that was cancelled or is still waiting has not answered.
    """
    if view["status"] != "COMPLETED":
        error = str(view.get("error", ""))
        if error == EXECUTION_TIMEOUT_ERROR:
            return f"timed out after {case.timeout:g} s"
        return f"{view['status']} {_why(error)}".strip()
    if case.output is UNSET or same(case.output, view.get("output")):
        return ""
    return f"expected {_shown(case.output)}, got {_shown(view.get('output'))}"


def same(one: object, other: object) -> bool:
    """Whether two JSON values are equal. Python takes True for 1, JSON does not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


async def _run(client: AsyncioClient, worker: asyncio.subprocess.Process, case: Case, name: str) -> Verdict:
    timeout_ms = max(1, round(case.timeout * 1000))
    body = {"input": case.input, "policy": {"executionTimeout": timeout_ms}}
    running = asyncio.ensure_future(_last_view(client, body))
    died = asyncio.ensure_future(worker.wait())
    try:
        await asyncio.wait((running, died), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return Verdict(name=name, reason=f"the worker ended with status {died.result()}", seconds=0.0)
        view = running.result()
        return Verdict(name=name, reason=judge(case, view), seconds=view.get("executionTime", 0) / 1000)
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
            await asyncio.wait_for(worker.wait(), END_S)
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
    """The words of an error; one that a handler raised is JSON in a string (protocol B.6)."""
    try:
        told = json.loads(error)
    except ValueError:
        told = None
    if isinstance(told, dict) and "error_message" in told:
        return f"{told.get('error_type', '')}: {told['error_message']}"
    return " ".join(_lines(error))


def _lines(error: str) -> Iterator[str]:
    for line in error.splitlines()[-3:]:
        yield line.strip()


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"
