"""The conformance suite against our own two ends, as its users run it; and against ends that are broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runpod_worker.conformance import service_runner, suites
from runpod_worker.conformance.check import CheckResult, Checks, require, require_equal
from runpod_worker.conformance.worker_runner import WorkerRunner, WorkerUnderTest
from runpod_worker.conformance.worker_suite import run_job

pytestmark = pytest.mark.slow

HANDLERS = Path(__file__).parents[2] / "runpod_worker/conformance/handlers"


def conformance(*options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "runpod_worker", "conformance", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    return done.returncode, done.stdout + done.stderr


def test_our_service_passes_every_check(site: Any) -> None:
    site.serve("--lease", "1.5")

    slow = ["--slow"] if os.environ.get("COMPAT") == "all" else []
    status, table = conformance(site.url, "--lease", "1.5", *slow)

    count = len(service_runner.select(suites.SERVICE, key=False, lease=True, slow=bool(slow)))  # keys: below
    assert (status, "FAIL" in table) == (0, False), table
    assert table.splitlines()[-1] == f"{count} of {count} passed"


def test_our_service_passes_the_check_of_keys(tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "data")]
    command = [sys.executable, "-m", "runpod_worker", "keys", "create", "me", "--endpoint", "ep", *data]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    key = next(word for word in made.split() if len(word) > 30)
    serve = [sys.executable, "-u", "-m", "runpod_worker", "serve", "--port", "0", *data]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as service:
        try:
            base = re.search(r"http://\S+:\d+", service.stdout.readline() if service.stdout else "")
            assert base, "the service prints its URL"

            status, table = conformance(f"{base[0]}/v2/ep", "--key", key, "--only", "key")
        finally:
            service.terminate()

    assert (status, table.splitlines()[-1]) == (0, "1 of 1 passed"), table


def test_our_worker_passes_every_check() -> None:
    status, table = conformance("--worker", f"{sys.executable} -m runpod_worker run {{handler}}")

    assert (status, "FAIL" in table) == (0, False), table
    assert table.splitlines()[-1] == f"{len(suites.WORKER)} of {len(suites.WORKER)} passed"


def test_a_handler_for_the_reference_sdk_passes_as_well_on_ours() -> None:
    command = f"{sys.executable} -m runpod_worker run --as-runpod {{sdk_handler}}"
    status, table = conformance("--worker", command, "--only", "posts what it returns")

    assert (status, table.splitlines()[-1]) == (0, "2 of 2 passed"), table


def test_a_worker_that_does_not_start_fails_with_its_last_lines() -> None:
    command = f"{sys.executable} -c \"import sys; sys.exit('no handler here')\""
    status, table = conformance("--worker", command, "--only", "empty dict")

    assert status == 1
    assert "exited with status 1 before it asked for a job; its last lines: no handler here" in table


def test_a_service_that_is_not_there_fails() -> None:
    status, table = conformance("http://127.0.0.1:9/v2/ep", "--only", "health")

    assert (status, "FAIL" in table, table.splitlines()[-1]) == (1, True, "0 of 1 passed")


@pytest.mark.parametrize(
    "options", [(), ("http://x/v2/ep", "--worker", "x"), ("not a url",), ("http://x/v2/e", "--only", "no such check")]
)
def test_contradictory_options_are_an_error(options: tuple[str, ...]) -> None:
    status, output = conformance(*options)

    assert (status, output.startswith("error: ")) == (2, True)


@pytest.fixture
async def yes_man() -> AsyncIterator[str]:
    """A service that answers everything with 200 and an empty object."""

    async def yes(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    runner = web.ServerRunner(web.Server(yes))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v2/ep"
    await runner.cleanup()


async def test_a_service_that_agrees_to_everything_passes_nothing(yes_man: str) -> None:
    checks = service_runner.select(suites.SERVICE, key=False, lease=False, slow=False)

    results = [result async for result in service_runner.run_checks(yes_man, checks)]

    assert [result.name for result in results if not result.failure] == []


async def test_what_one_check_leaves_behind_does_not_reach_the_next() -> None:
    checks: Checks[WorkerUnderTest] = Checks()
    names = []

    @checks("X", group="function")
    async def fails(worker: WorkerUnderTest) -> None:
        names.append(worker.name)
        worker.service.submit({"sleep": 60})
        require(False, "as it should")

    @checks("X", group="function")
    async def passes(worker: WorkerUnderTest) -> None:
        names.append(worker.name)
        require_equal((await run_job(worker.service, {"return": 1})).json, {"output": 1}, "result")

    runner = WorkerRunner([sys.executable, "-m", "runpod_worker", "run", "{handler}"], dict(os.environ))
    results: list[CheckResult] = [result async for result in runner.run(checks.all)]

    assert [(result.name, result.failure) for result in results] == [("fails", "as it should"), ("passes", "")]
    assert names[0] != names[1]


def test_every_check_names_its_clause_and_no_name_is_used_twice() -> None:
    for suite in (suites.SERVICE, suites.WORKER):
        names = [check.name for check in suite]
        assert len(names) == len(set(names))
        assert all(check.clause[0] in "ABCDEG" for check in suite)
