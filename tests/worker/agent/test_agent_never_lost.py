"""A result reaches the service across outages and restarts; a job that was taken and not run is released."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.worker.agent import agent

ECHO = """
@worker.handler
def handler(job):
    return job["input"]
"""

SLOW = """
@worker.handler
def handler(job):
    job.progress("running")
    time.sleep(job["input"])
    return "end"
"""


REFUSAL = b'{"status":413,"title":"Payload Too Large","detail":"exceeded max body size"}'


async def echo(job: Any) -> Any:
    return job.input


async def slow(job: Any) -> str:
    job.progress("running")
    await asyncio.sleep(job.input)
    return "end"


def outcomes(service: Any) -> dict[str, list[Any]]:
    reports: dict[str, list[Any]] = {}
    for sent in service.to("job-done"):
        if sent.is_final:
            reports.setdefault(sent.job_id, []).append(sent.json)
    return reports


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize("failure", [[500] * 5, [503, 502, 504], [429], ["cut", "cut"], [408], [500, "cut", 429, 503]])
async def test_a_result_is_sent_until_it_is_acknowledged(service: Any, start_agent: Any, failure: list[Any]) -> None:
    service.script("job-done", *failure)
    await start_agent(echo)
    await service.add({"id": "a", "input": 1})

    await service.until(lambda: len(outcomes(service).get("a", [])) == len(failure) + 1)
    await service.add({"id": "b", "input": 2})
    await service.result("b")

    assert outcomes(service)["a"] == [{"output": 1}] * (len(failure) + 1)


async def test_a_refused_result_becomes_a_failure_with_the_services_words(service: Any, start_agent: Any) -> None:
    service.script("job-done", (413, REFUSAL))
    worker = await start_agent(echo)
    await service.add({"id": "a", "input": 1})

    await service.until(lambda: len(outcomes(service).get("a", [])) == 2)

    assert "exceeded max body size" in outcomes(service)["a"][1]["error"]
    assert "outcome.refused" in worker.events


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 413, 422])
async def test_a_proxys_refusal_costs_no_result_and_no_neighbour(service: Any, start_agent: Any, status: int) -> None:
    service.script("job-done", (status, b"<html>from a proxy</html>"))
    worker = await start_agent(echo)
    await service.add({"id": "a", "input": 1})
    await service.add({"id": "b", "input": 2})

    await service.result("b")
    await service.until(lambda: len(outcomes(service).get("a", [])) == 2)
    await worker.logged("report.accepted")

    assert await worker.terminate() == 0
    assert outcomes(service)["a"] == [{"output": 1}] * 2
    assert worker.events.count("report.denied") == 1


@pytest.fixture
def short_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends waits only briefly for reports that no service accepts."""
    monkeypatch.setattr(agent, "MIN_SHUTDOWN_S", 0.5)


@pytest.mark.usefixtures("short_end")
async def test_results_are_kept_across_a_start_with_a_wrong_key(service: Any, start_agent: Any) -> None:
    service.fail("job-done", status=401)
    first = await start_agent(echo)
    await service.add({"id": "a", "input": 1})
    await first.logged("report.denied")
    assert await first.terminate() == 0

    service.fail("job-done", "ping", "job-take", status=401)
    second = await start_agent(echo)
    await service.until(lambda: len(outcomes(service)["a"]) >= 2)
    await second.logged("report.denied")
    service.recover()

    await second.logged("outcome.replayed")
    assert outcomes(service)["a"][-1] == {"output": 1}


@pytest.mark.usefixtures("short_end")
async def test_a_spooled_outcome_that_is_refused_becomes_a_failure(service: Any, start_agent: Any) -> None:
    service.fail("job-done", status=403)
    first = await start_agent(echo)
    await service.add({"id": "a", "input": 1})
    await first.logged("report.denied")
    assert await first.terminate() == 0
    service.recover()
    service.script("job-done", (413, REFUSAL))

    await start_agent(echo)

    await service.until(lambda: "error" in outcomes(service)["a"][-1])
    assert "exceeded max body size" in outcomes(service)["a"][-1]["error"]


async def test_a_refused_chunk_fails_the_job(service: Any, start_agent: Any) -> None:
    async def stream(job: Any) -> Any:
        yield "x"

    service.script("job-stream", (413, REFUSAL))
    await start_agent(stream)
    await service.add({"id": "a", "input": 1})

    assert "exceeded max body size" in (await service.result("a"))["error"]


# ---------------------------------------------------------------- the service goes away


async def test_an_outage_costs_no_result_and_few_requests(service: Any, start_agent: Any) -> None:
    async def handler(job: Any) -> Any:
        await asyncio.sleep(0.05)
        return job.input

    worker = await start_agent(handler, slots=8)
    await service.add(*({"id": f"j{i}", "input": i} for i in range(200)))
    await service.until(lambda: len(outcomes(service)) > 20)
    service.fail("job-done", "job-take", "job-take-batch", "job-stop", "ping", status=503)
    began, before = time.monotonic(), len(service.requests)
    await asyncio.sleep(2)
    requests, lasted_s = len(service.requests) - before, time.monotonic() - began
    service.recover()

    await service.until(lambda: len(outcomes(service)) == 200)

    assert {job: results[-1]["output"] for job, results in outcomes(service).items()} == {
        f"j{i}": i for i in range(200)
    }
    assert requests < 5 * lasted_s + 30  # the requests in flight when it began, then fewer than 5 a second
    assert await worker.terminate() == 0


async def test_results_survive_a_restart_of_the_service(service: Any, start_agent: Any) -> None:
    await start_agent(slow)
    await service.add({"id": "a", "input": 0.5})
    await service.requests_to("job-done")

    await service.down()
    await asyncio.sleep(1)
    await service.up()

    assert await service.result("a") == {"output": "end"}


async def test_a_worker_starts_before_its_service(service: Any, start_agent: Any) -> None:
    await service.down()
    worker = await start_agent(echo)
    await worker.logged("service.lost")

    await service.up()
    await service.add({"id": "a", "input": 1})

    assert await service.result("a") == {"output": 1}


# ---------------------------------------------------------------- the spool


async def test_a_result_that_is_undelivered_at_the_end_is_sent_by_the_next_worker(
    service: Any, start_worker: Any, tmp_path: Path
) -> None:
    first = await start_worker(SLOW)
    await service.add({"id": "a", "input": 0.3})
    await service.requests_to("job-done")
    await service.down()
    assert await first.terminate() == 0
    [entry] = (tmp_path / "spool").rglob("*.outcome")
    assert entry.stat().st_mode & 0o777 == 0o600
    assert "a" not in service.results()

    await service.up()
    await start_worker(ECHO)

    assert await service.result("a") == {"output": "end"}
    await _gone(entry)


async def test_a_result_that_is_undelivered_for_long_survives_a_kill(
    service: Any, start_worker: Any, tmp_path: Path
) -> None:
    first = await start_worker(SLOW)
    await service.add({"id": "a", "input": 0.3})
    await service.requests_to("job-done")
    await service.down()
    async with asyncio.timeout(30):
        while "outcome.spooled" not in first.log:
            await asyncio.sleep(0.05)
    first.signal(signal.SIGKILL)
    await first.exit()

    await service.up()
    await start_worker(ECHO)

    assert await service.result("a") == {"output": "end"}


# ---------------------------------------------------------------- taken, and not run


async def test_an_idle_worker_exits_at_once_and_releases_its_take(agreed: Any, start_agent: Any) -> None:
    worker = await start_agent(echo)
    [take] = await agreed.requests_to("job-take")

    began = time.monotonic()
    assert await worker.terminate() == 0
    took = time.monotonic() - began

    assert took < 5  # far from the held poll's minute; the figure is the benchmark's business
    [returned] = agreed.to("job-return")
    assert returned.json == {"takes": [take.headers["x-take-id"]], "jobs": []}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("as_executor", [False, True])
async def test_a_signal_lets_running_jobs_finish(
    service: Any, start_worker: Any, number: signal.Signals, as_executor: bool
) -> None:
    worker = await start_worker(SLOW, as_executor=as_executor)
    await service.add({"id": "a", "input": 0.7}, {"id": "never", "input": 0})
    await service.requests_to("job-done")

    worker.signal(number)

    assert await worker.exit() == 0
    assert service.results() == {"a": {"output": "end"}}


async def test_a_take_whose_connection_was_cut_is_released(agreed: Any, start_agent: Any) -> None:
    agreed.script("job-take", "cut", "cut")
    await start_agent(echo)

    [first] = (await agreed.requests_to("job-return"))[:1]

    assert first.json["takes"] == [agreed.to("job-take")[0].headers["x-take-id"]]
    await agreed.add({"id": "a", "input": 1, "attempt": 1})
    assert (await agreed.result("a"))["output"] == 1


async def test_jobs_that_wait_are_released_when_the_worker_drains(agreed: Any, start_worker: Any) -> None:
    worker = await start_worker(SLOW)
    agreed.delay("job-done", 0.05)
    await agreed.add(*({"id": f"warm{i}", "input": 0, "attempt": 1} for i in range(60)))
    await agreed.add({"id": "slow", "input": 1, "attempt": 1})
    await agreed.add(*({"id": f"behind{i}", "input": 0, "attempt": 3} for i in range(5)))
    await agreed.until(lambda: "slow" in agreed.taken_at)

    assert await worker.terminate() == 0

    taken = set(agreed.taken_at)
    returned = {job["id"] for sent in agreed.to("job-return") for job in sent.json["jobs"]}
    unseen = taken - set(agreed.results()) - returned
    tokens = [token for sent in agreed.to("job-return") for token in sent.json["takes"]]
    assert not unseen or tokens  # returned by a take that was cut: the take is released instead
    assert not set(agreed.results()) & returned


async def test_jobs_that_still_run_after_the_grace_are_released(agreed: Any, start_agent: Any) -> None:
    worker = await start_agent(slow, grace_s=0.3)
    await agreed.add({"id": "a", "input": 60, "attempt": 4})
    await agreed.requests_to("job-done")

    assert await worker.terminate() == 0

    returned = [job for sent in agreed.to("job-return") for job in sent.json["jobs"]]
    assert [(job["id"], job["attempt"]) for job in returned] == [("a", 4)]
    assert agreed.results() == {}


async def test_a_second_signal_ends_the_worker_now(service: Any, start_worker: Any) -> None:
    worker = await start_worker(SLOW)
    await service.add({"id": "a", "input": 60})
    await service.requests_to("job-done")

    worker.signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        while "worker.draining" not in worker.log:
            await asyncio.sleep(0.02)
    worker.signal(signal.SIGTERM)

    assert await worker.exit() == 1


async def test_a_handler_that_asks_for_a_new_worker_ends_this_one(agreed: Any, start_worker: Any) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            return {"refresh_worker": True, "x": 1}
        """,
        as_executor=True,
    )
    await agreed.add({"id": "a", "input": 1, "attempt": 1})

    assert await worker.exit() == 0

    result = agreed.results()["a"]
    assert (result["output"], result["stopPod"]) == ({"x": 1}, True)


async def test_a_handler_that_asks_for_a_new_worker_gets_a_new_process_where_nothing_restarts_the_worker(
    agreed: Any, start_worker: Any
) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            job.save(b"x" * 100_000, "a.bin")
            return {"refresh_worker": True, "pid": os.getpid()}
        """
    )
    agreed.takes_back = True
    pids = set()
    for name in ("a", "b", "c"):  # one by one: a job that waits in the process may start before it is revoked
        await agreed.add({"id": name, "input": 1, "attempt": 1})
        pids.add((await agreed.result(name))["output"]["pid"])

    assert len(pids) == 3
    assert len(agreed.to("files")) == 3
    assert await worker.terminate() == 0


async def _gone(path: Path) -> None:
    async with asyncio.timeout(30):
        while path.exists():
            await asyncio.sleep(0.02)
