"""A stop ends the job, by a flag or by SIGKILL; its report."""

import asyncio
import signal
import time
from typing import Any

import pytest

KINDS = {
    "function": """
        @worker.handler
        def handler(job):
            job.progress("running")
            time.sleep(job["input"])
            return "end"
    """,
    "coroutine": """
        @worker.handler
        async def handler(job):
            job.progress("running")
            await asyncio.sleep(job["input"])
            return "end"
    """,
    "generator": """
        @worker.handler
        def handler(job):
            job.progress("running")
            time.sleep(job["input"])
            yield "end"
    """,
    "async_generator": """
        @worker.handler
        async def handler(job):
            job.progress("running")
            await asyncio.sleep(job["input"])
            yield "end"
    """,
}

STUBBORN = """
import threading
@worker.handler(concurrency=4)
async def handler(job):
    if job["input"] == "stubborn":
        job.progress("running")
        while True:
            try:
                await asyncio.sleep(60)
            except BaseException:
                pass
    if job["input"] == "pid":
        return os.getpid()
    job.progress("running")
    await asyncio.sleep(1.5)
    return "end"
"""


async def sleep(job: Any) -> str:
    job.progress("running")
    await asyncio.sleep(job.input)
    return "end"


def outcomes(service: Any, job: str) -> list[Any]:
    return [
        sent.json for sent in service.to("job-done") if sent.job_id == job and sent.json.get("status") != "IN_PROGRESS"
    ]


async def running(service: Any, job: str) -> None:
    await service.until(lambda: [sent for sent in service.to("job-done") if sent.job_id == job])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stopped_job_frees_its_slot_and_is_confirmed(agreed: Any, start_worker: Any, kind: str) -> None:
    await start_worker(KINDS[kind], RUNPOD_WORKER_STOP_GRACE="20")
    await agreed.add({"id": "a", "input": 30, "attempt": 1})
    await running(agreed, "a")

    await agreed.stop("a")
    await agreed.until(lambda: outcomes(agreed, "a"))
    await agreed.add({"id": "b", "input": 0, "attempt": 1})
    await agreed.until(lambda: outcomes(agreed, "b"))

    assert outcomes(agreed, "a") == [{"stopped": True}]


async def test_a_plain_service_gets_no_report_of_a_stopped_job(service: Any, start_agent: Any) -> None:
    await start_agent(sleep)
    await service.add({"id": "a", "input": 30})
    await running(service, "a")

    await service.stop("a")
    await service.add({"id": "b", "input": 0})

    assert await service.result("b") == {"output": "end"}
    assert outcomes(service, "a") == []


async def test_a_handler_that_does_not_stop_is_killed_and_replaced(agreed: Any, start_worker: Any) -> None:
    await start_worker(STUBBORN)
    await agreed.add({"id": "first", "input": "pid", "attempt": 1})
    before = (await agreed.result("first"))["output"]
    await agreed.add({"id": "a", "input": "stubborn", "attempt": 1})
    await running(agreed, "a")

    stopped_at = time.monotonic()
    await agreed.stop("a")
    await agreed.until(lambda: outcomes(agreed, "a"))
    took = agreed.to("job-done")[-1].at - stopped_at
    await agreed.add({"id": "b", "input": "pid", "attempt": 1})

    assert (await agreed.result("b"))["output"] != before
    assert outcomes(agreed, "a") == [{"stopped": True}]
    assert took >= 0.5  # not before the grace was over: the status is final only when the slot is free


async def test_the_other_jobs_of_a_killed_process_are_released(agreed: Any, start_worker: Any) -> None:
    await start_worker(STUBBORN)
    await agreed.add({"id": "a", "input": "stubborn", "attempt": 1}, {"id": "other", "input": "slow", "attempt": 7})
    await running(agreed, "a")
    await running(agreed, "other")

    await agreed.stop("a")
    await agreed.requests_to("job-return")

    returned = [job for sent in agreed.to("job-return") for job in sent.json["jobs"]]
    assert ("other", 7) in [(job["id"], job["attempt"]) for job in returned]
    assert outcomes(agreed, "other") == []


async def test_the_other_jobs_of_a_killed_process_run_again_where_nothing_can_be_released(
    service: Any, start_worker: Any
) -> None:
    await start_worker(STUBBORN)
    await service.add({"id": "a", "input": "stubborn"}, {"id": "other", "input": "slow"})
    await running(service, "a")
    await running(service, "other")

    await service.stop("a")

    assert await service.result("other") == {"output": "end"}


async def test_a_job_that_waits_behind_another_is_stopped_before_it_starts(agreed: Any, start_worker: Any) -> None:
    """Its slot was never used, so the answer does not wait for the job before it."""
    agreed.delay("job-done", 0.5)  # with this round trip, a job of 2 s has its next one taken a second before its end
    await start_worker(
        """
        @worker.handler
        def handler(job):
            if job["id"] == "slow":
                job.progress("running")
            time.sleep(job["input"])
        """,
        RUNPOD_WORKER_PREFETCH="5",
    )
    jobs = {"before": 2, "slow": 60, "next": 0}
    await agreed.add(*({"id": job, "input": seconds, "attempt": 1} for job, seconds in jobs.items()))
    await running(agreed, "slow")
    await agreed.until(lambda: "next" in agreed.taken_at)

    await agreed.stop("next")
    await agreed.until(lambda: outcomes(agreed, "next"))

    assert outcomes(agreed, "next") == [{"stopped": True}]
    assert outcomes(agreed, "slow") == []


async def test_a_job_over_its_time_fails_in_the_platforms_words(agreed: Any, start_worker: Any) -> None:
    await start_worker(KINDS["function"])
    await agreed.add({"id": "a", "input": 30, "attempt": 1, "timeoutMs": 300})

    await agreed.until(lambda: outcomes(agreed, "a"))

    [outcome] = outcomes(agreed, "a")
    assert "executionTimeout exceeded" in outcome["error"]


async def test_a_job_over_its_time_that_does_not_stop_is_killed(agreed: Any, start_worker: Any) -> None:
    await start_worker(STUBBORN)
    await agreed.add({"id": "a", "input": "stubborn", "attempt": 1, "timeoutMs": 300})

    await agreed.until(lambda: outcomes(agreed, "a"))
    await agreed.add({"id": "b", "input": "pid", "attempt": 1})

    assert "executionTimeout exceeded" in outcomes(agreed, "a")[0]["error"]
    assert (await agreed.result("b"))["output"]


async def test_an_attempt_whose_lease_is_lost_is_stopped_in_silence(agreed: Any, start_agent: Any) -> None:
    async def stream(job: Any) -> Any:
        for number in range(10000 if job.input == "slow" else 1):
            yield number
            await asyncio.sleep(0.01)

    await start_agent(stream)
    await agreed.add({"id": "a", "input": "slow", "attempt": 1})
    await agreed.requests_to("job-stream", 2)

    agreed.stale.add("a")
    await agreed.add({"id": "b", "input": "quick", "attempt": 1})
    await agreed.until(lambda: outcomes(agreed, "b"))

    assert outcomes(agreed, "a") == []


async def test_a_stop_for_a_job_that_was_never_seen_is_confirmed(agreed: Any, start_agent: Any) -> None:
    await start_agent(sleep)

    await agreed.stop("unseen")
    await agreed.until(lambda: outcomes(agreed, "unseen"))

    assert outcomes(agreed, "unseen") == [{"stopped": True}]


async def test_a_service_without_job_stop_is_not_asked_again_and_again(service: Any, start_agent: Any) -> None:
    service.script("job-stop", *[404] * 50)
    await start_agent(sleep)
    await service.requests_to("job-stop")
    await service.add({"id": "a", "input": 0.5})

    await service.result("a")

    assert len(service.to("job-stop")) == 1


async def test_a_job_behind_one_that_runs_longer_than_recent_ones_is_released(agreed: Any, start_worker: Any) -> None:
    await start_worker(
        """
        @worker.handler
        def handler(job):
            time.sleep(job["input"])
            return job["input"]
        """
    )
    agreed.delay("job-done", 0.05)  # a round trip long enough to take ahead of 20 ms jobs
    await agreed.add(*({"id": f"warm{i}", "input": 0.02, "attempt": 1} for i in range(40)))
    await agreed.add({"id": "long", "input": 20, "attempt": 1})
    await agreed.add(*({"id": f"behind{i}", "input": 0.02, "attempt": 1} for i in range(3)))
    await agreed.until(lambda: "long" in agreed.taken_at)
    await agreed.until(lambda: len(outcomes(agreed, "warm39")) == 1)
    await asyncio.sleep(2)  # well past 1.25 times the longest job

    returned = {job["id"] for sent in agreed.to("job-return") for job in sent.json["jobs"]}
    held = {job for job in agreed.taken_at if job.startswith("behind")} - returned - set(agreed.results())
    assert held == set()


async def test_a_signal_to_the_users_process_reaches_its_agent(service: Any, start_worker: Any) -> None:
    worker = await start_worker(KINDS["function"], as_executor=True)
    await service.add({"id": "a", "input": 0.5})
    await running(service, "a")

    worker.signal(signal.SIGTERM)

    assert await worker.exit() == 0
    assert outcomes(service, "a") == [{"output": "end"}]


async def test_a_stream_that_cannot_leave_holds_up_no_other_job_and_can_be_stopped(
    agreed: Any, start_worker: Any
) -> None:
    agreed.delay("job-stream", 300)
    agreed.takes_back = True
    await start_worker(
        """
        @worker.handler(concurrency=4)
        async def handler(job):
            if job["input"] != "stream":
                return
            for n in range(1000):
                yield "x" * 500_000
        """,
        RUNPOD_WORKER_STOP_GRACE="20",
    )
    await agreed.add({"id": "slow", "input": "stream", "attempt": 1})
    await agreed.requests_to("job-stream")

    await agreed.add(*({"id": f"j{n}", "input": n, "attempt": 1} for n in range(20)))
    for n in range(20):
        await agreed.result(f"j{n}")
    await agreed.stop("slow")

    assert await agreed.result("slow") == {"stopped": True}


@pytest.mark.parametrize("slots", ["1", "2"])
async def test_the_error_of_a_job_never_shows_what_another_job_wrote(
    service: Any, start_worker: Any, slots: str
) -> None:
    await start_worker(
        """
        @worker.handler
        def handler(job):
            print(job["input"], file=sys.stderr)
            if job["input"] == "fatal":
                os._exit(5)
        """,
        RUNPOD_WORKER_CONCURRENCY=slots,
    )
    await service.add({"id": "a", "input": "secret"})
    await service.result("a")
    await service.add({"id": "b", "input": "fatal"})

    error = (await service.result("b"))["error"]

    assert "exited with code 5" in error
    assert "secret" not in error
    assert ("fatal" in error) == (slots == "1")
