"""The client against our own job service, with a worker that does what a job's input says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import pytest

import runpod_worker
from runpod_worker.core import errors
from runpod_worker.core.job import Job, Status
from runpod_worker.service.keys import DATABASE, KeyFile
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.server import Server, open_stores
from runpod_worker.service.settings import ServiceSettings

T = TypeVar("T")

WAIT_S = 30.0
KEY = "xxxxxxxxxxxxxxxxxxxxxx"
SEED = (Path(__file__).parent.parent / "data" / "seed.md").read_text()
PYTHON = re.findall(r"^```python[^\n]*\n(.*?)^```", SEED, re.DOTALL | re.MULTILINE)


class Live:
    """A job service and a worker in a thread of their own."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._work: asyncio.Task[None] | None = None

    def do(self, coro: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result(WAIT_S)

    def start(self) -> None:
        self._add_keys()
        self._thread.start()
        self.do(self._start(port=0))

    def restart(self) -> None:
        self.do(self._server.close())
        self.do(self._start(self._port))

    def stop(self) -> None:
        self.stop_work()
        self.do(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    async def _start(self, port: int) -> None:
        settings = ServiceSettings(port=port, data=self._data)
        self._stores = open_stores(settings)
        self._server = Server(settings, self._stores)
        await self._server.start()
        self._port = urlsplit(self._server.url).port or 0
        self.base_url = f"{self._server.url}/v2"

    def _add_keys(self) -> None:
        with contextlib.closing(KeyFile(self._data / DATABASE)) as keys:
            account = keys.ensure_account("me")
            for endpoint in ("ENDPOINT_ID", "your_endpoint_id"):
                keys.add_endpoint(account, endpoint)
            keys.add_key(account, KEY)

    def work(self) -> None:
        """Let a worker take jobs of ENDPOINT_ID, one after the other."""
        self.do(self._begin_work())

    async def _begin_work(self) -> None:
        self._work = asyncio.create_task(self._run())

    def stop_work(self) -> None:
        if self._work is not None:
            self.do(self._end_work(self._work))
            self._work = None

    async def _end_work(self, work: asyncio.Task[None]) -> None:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work

    async def _run(self) -> None:
        async with aiohttp.ClientSession(f"{self.base_url}/ENDPOINT_ID/", headers={"Authorization": KEY}) as http:
            while True:
                async with http.get("job-take/w1") as taken:
                    job = await taken.json() if taken.status == 200 else None
                if job is not None:
                    await self._run_job(http, job)

    async def _run_job(self, http: aiohttp.ClientSession, job: dict[str, Any]) -> None:
        job_input = job["input"]
        for chunk in job_input.get("chunks", ()):
            await self._post(http, f"job-stream/w1/{job['id']}", {"output": chunk})
        result = {"error": job_input["error"]} if "error" in job_input else {"output": {"echo": job_input}}
        await self._post(http, f"job-done/w1/{job['id']}", result)

    async def _post(self, http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> None:
        async with http.post(path, json=body) as reply:
            assert reply.status == 200
            await reply.read()

    def keep(self, job: Job, request: bytes = b'{"input":{}}') -> None:
        self.do(self._keep(job, request))

    async def _keep(self, job: Job, request: bytes) -> None:
        transaction = Transaction(self._server.queue.jobs)
        transaction.add(job, request)
        await transaction.commit()


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    made = Live(tmp_path)
    made.start()
    monkeypatch.setitem(vars(runpod_worker), "api_key", KEY)
    monkeypatch.setitem(vars(runpod_worker), "endpoint_url_base", made.base_url)
    yield made
    made.stop()


@pytest.fixture
def service(live: Live) -> Any:
    """What `make_endpoint` speaks to here."""

    class Address:
        url = live.base_url

    return Address


@pytest.fixture
def endpoint(live: Live, make_endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(vars(runpod_worker), "api_key", KEY)
    return make_endpoint("ENDPOINT_ID")


def test_a_job_goes_round(live: Live, endpoint: Any) -> None:
    live.work()

    assert endpoint.run_sync({"a": 1}, timeout=WAIT_S) == {"echo": {"a": 1}}
    job = endpoint.run({"input": {}})
    assert job.output(WAIT_S) == {"echo": {}}
    assert job.status() == "COMPLETED"
    assert job.view()["executionTime"] >= 0


def test_a_job_that_waits_for_a_worker_is_awaited(live: Live, endpoint: Any) -> None:
    job = endpoint.run({"a": 1})
    assert job.status() == "IN_QUEUE"
    assert job.output() is None
    with pytest.raises(errors.WaitTimedOut) as caught:
        job.output(0.2)
    assert caught.value.job["id"] == job.job_id

    live.work()

    assert job.output(None) == {"echo": {"a": 1}}


def test_a_failed_job_raises_its_error(live: Live, endpoint: Any) -> None:
    live.work()

    with pytest.raises(errors.JobFailed, match="failed: too wide") as caught:
        endpoint.run_sync({"error": "too wide"}, timeout=WAIT_S)

    assert caught.value.job["error"] == "too wide"
    assert caught.value.job["status"] == "FAILED"


def test_chunks_arrive_in_order_and_end_with_the_job(live: Live, endpoint: Any) -> None:
    live.work()

    chunks = list(endpoint.run({"chunks": [1, {"two": 2}, [3], None]}).stream())

    assert chunks == [1, {"two": 2}, [3], None]


def test_a_cancelled_job_raises_and_ends_its_stream(live: Live, endpoint: Any) -> None:
    job = endpoint.run({"a": 1})

    assert job.cancel(timeout=WAIT_S)["status"] == "CANCELLED"

    with pytest.raises(errors.JobCancelled):
        job.output(WAIT_S)
    with pytest.raises(errors.JobCancelled):
        list(job.stream())


def test_a_failed_job_can_be_retried_and_a_completed_one_not(live: Live, endpoint: Any) -> None:
    live.work()
    job = endpoint.run({"error": "boom"})
    with pytest.raises(errors.JobFailed):
        job.output(WAIT_S)

    assert job.retry(timeout=WAIT_S)["status"] == "IN_QUEUE"
    with pytest.raises(errors.JobFailed):
        job.output(WAIT_S)

    done = endpoint.run({})
    assert done.output(WAIT_S) == {"echo": {}}
    with pytest.raises(errors.IllegalTransition, match="COMPLETED"):
        done.retry(timeout=WAIT_S)


def test_health_and_purge_count_jobs(live: Live, endpoint: Any) -> None:
    for _ in range(3):
        endpoint.run({})

    assert endpoint.health(timeout=WAIT_S)["jobs"]["inQueue"] == 3
    assert endpoint.purge_queue(timeout=WAIT_S) == {"removed": 3, "status": "completed"}


def test_refusals_of_the_service_are_told_apart(live: Live, make_endpoint: Any, endpoint: Any) -> None:
    with pytest.raises(errors.JobNotFound):
        endpoint.job("nobody").status()
    with pytest.raises(errors.JobNotFound):
        endpoint.job("nobody").output(WAIT_S)
    with pytest.raises(errors.JobNotFound):
        list(endpoint.job("nobody").stream())
    with pytest.raises(errors.Unauthorized, match="invalid api key"):
        make_endpoint("ENDPOINT_ID", api_key="wrong").run({})
    with pytest.raises(errors.EndpointNotFound):
        make_endpoint("nowhere").run({})
    with pytest.raises(errors.BadRequest, match="executionTimeout"):
        endpoint.run({"input": {}, "policy": {"executionTimeout": "soon"}})
    with pytest.raises(errors.TooLarge, match="exceeded max body size of 10MiB"):
        endpoint.run({"image": "x" * (11 << 20)})


def test_a_wait_survives_a_restart_of_the_service(live: Live, endpoint: Any) -> None:
    job = endpoint.run({"a": 1})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.output, WAIT_S)
        live.restart()
        live.work()

        assert waiting.result(WAIT_S) == {"echo": {"a": 1}}


def test_every_python_block_of_the_seed_document_is_found() -> None:
    assert len(PYTHON) == SEED.count("import runpod\n") == 6


@pytest.mark.parametrize("block", PYTHON)
def test_python_of_the_seed_document_runs_as_written(live: Live, block: str) -> None:
    now = time.time()
    live.work()
    done: dict[str, Any] = {"created_at": now, "queued_at": now, "ended_at": now, "status": Status.COMPLETED}
    live.keep(Job(id="your_job_id", endpoint="your_endpoint_id", **done))
    program = block.replace("\nimport runpod\n", "\nimport runpod_worker as runpod\n")
    assert program != block
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(compile(program, "seed.md", "exec"), {})

    expected = {"print(job.status())": "COMPLETED", "print(run_request.status())": "(IN_QUEUE|IN_PROGRESS|COMPLETED)"}
    for line, words in expected.items():
        if line in block:
            assert re.fullmatch(words, printed.getvalue().strip())
    if "print(run_request)\n" in block:
        assert "dog" in printed.getvalue()
