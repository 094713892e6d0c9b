"""The service assigns a job again while this worker holds it. The job ends once, without waiting for a lease.

Each test forces one order of the assignment, the outcome, chunks, and stops of the earlier attempt.
"""

import asyncio
from pathlib import Path
from typing import Any

ECHO = """
@worker.handler
def handler(job):
    return job["input"]
"""

WAITS = """
@worker.handler(concurrency=2)
async def handler(job):
    job.progress("running")
    while not os.path.exists(job["input"]):
        await asyncio.sleep(0.01)
    return "end"
"""

STREAMS = """
runs = 0
@worker.handler(concurrency=2)
async def handler(job):
    global runs
    runs += 1
    run = runs
    for n in range(3):
        yield f"{run}.{n}"
    while not os.path.exists(job["input"]):
        await asyncio.sleep(0.01)
    yield f"{run}.end"
"""

STALE = {"X-Stale": "1"}


def outcomes(service: Any, job: str) -> list[tuple[str, Any]]:
    """Attempt and body of each final report."""
    final = [done for done in service.to("job-done") if done.job_id == job and done.json.get("status") != "IN_PROGRESS"]
    return [(done.headers.get("x-attempt"), done.json) for done in final]


async def test_a_job_assigned_with_the_stale_reply_to_its_own_outcome_is_not_lost(
    agreed: Any, start_worker: Any
) -> None:
    agreed.reassign_count = 5
    await start_worker(ECHO)

    await agreed.add(*({"id": f"j{n}", "input": n, "attempt": 1} for n in range(300)))
    await agreed.until(lambda: len(agreed.results()) == 300 and not agreed.reassign_count)

    twice = {done.job_id for done in agreed.to("job-done") if done.headers["x-attempt"] != "1"}
    await agreed.until(lambda: sum(len(outcomes(agreed, job)) for job in agreed.results()) == 305)
    for job in twice:
        (first, body), *_, (last, same) = outcomes(agreed, job)
        assert (int(last) > int(first), same["output"]) == (True, body["output"])


async def test_a_job_that_is_assigned_again_while_its_outcome_is_sent_is_reported_for_the_new_attempt(
    agreed: Any, start_worker: Any, tmp_path: Path
) -> None:
    await start_worker(WAITS)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.requests_to("job-done")
    agreed.delay("job-done", 1.0)
    agreed.script("job-done", (200, b"[]", STALE))
    (tmp_path / "go").touch()
    await agreed.until(lambda: outcomes(agreed, "a"))

    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})

    await agreed.until(lambda: len(outcomes(agreed, "a")) == 2)
    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["1", "2"]


async def test_a_stale_answer_to_progress_of_the_attempt_before_does_not_stop_the_new_one(
    agreed: Any, start_worker: Any, tmp_path: Path
) -> None:
    agreed.delay("job-done", 1.0)
    agreed.script("job-done", (200, b"", STALE))
    await start_worker(WAITS)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.requests_to("job-done")

    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await agreed.until(lambda: len(agreed.to("job-take") + agreed.to("job-take-batch")) >= 3)
    await asyncio.sleep(1.2)  # until the stale answer has come; that nothing is stopped has no event
    (tmp_path / "go").touch()

    result = await agreed.result("a")
    assert result["output"] == "end"
    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["2"]


async def test_a_stream_that_is_assigned_again_starts_from_its_first_chunk(
    agreed: Any, start_worker: Any, tmp_path: Path
) -> None:
    await start_worker(STREAMS)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.until(lambda: sum(len(sent.json["outputs"]) for sent in agreed.to("job-stream")) == 3)

    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await agreed.until(lambda: [sent for sent in agreed.to("job-stream") if sent.headers["x-attempt"] == "2"])
    (tmp_path / "go").touch()

    await agreed.result("a")
    posts = [sent.json for sent in agreed.to("job-stream") if sent.headers["x-attempt"] == "2"]
    assert posts[0]["index"] == 0
    assert [chunk for post in posts for chunk in post["outputs"]] == ["2.0", "2.1", "2.2", "2.end"]
    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["2"]


async def test_a_job_that_is_assigned_again_while_it_is_being_stopped_runs_afterwards(
    agreed: Any, start_worker: Any, tmp_path: Path
) -> None:
    await start_worker(
        """
        @worker.handler
        def handler(job):
            job.progress("running")
            if os.path.exists(job["input"]):
                return "second"
            try:
                time.sleep(60)
            finally:
                open(job["input"], "w").close()
                time.sleep(0.5)
        """,
        RUNPOD_WORKER_STOP_GRACE="20",
    )
    await agreed.add({"id": "a", "input": str(tmp_path / "stopped"), "attempt": 1})
    await agreed.requests_to("job-done")
    agreed.script("job-done", (200, b'[{"id":"a","input":"%s","attempt":2}]' % bytes(tmp_path / "stopped")))

    await agreed.stop("a")
    await agreed.add({"id": "a", "input": str(tmp_path / "stopped"), "attempt": 2})

    await agreed.until(lambda: any(body.get("output") == "second" for _, body in outcomes(agreed, "a")))


async def test_a_stop_of_the_attempt_before_does_not_hit_the_one_that_runs(
    agreed: Any, start_worker: Any, tmp_path: Path
) -> None:
    await start_worker(WAITS)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await agreed.requests_to("job-done")

    agreed.script("job-stop", b'{"jobsToStop":["a","gone"],"attempts":[1,3]}')
    await agreed.stop("nobody")  # answers the poll that is open; the next one gets what is scripted
    await agreed.until(lambda: outcomes(agreed, "gone"))
    (tmp_path / "go").touch()

    await agreed.until(lambda: ("2", "end") in [(n, body.get("output")) for n, body in outcomes(agreed, "a")])
    assert ("1", {"stopped": True}) in outcomes(agreed, "a")  # for the attempt that was meant, which is over
    assert outcomes(agreed, "gone") == [("3", {"stopped": True})]


async def test_a_released_job_names_its_take(agreed: Any, start_worker: Any) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            job.progress("running")
            time.sleep(60)
        """,
        RUNPOD_WORKER_GRACE="0.3",
    )
    await agreed.add({"id": "a", "input": 1, "attempt": 4})
    await agreed.requests_to("job-done")

    assert await worker.terminate() == 0

    [job] = [job for sent in agreed.to("job-return") for job in sent.json["jobs"]]
    assert job == {"id": "a", "attempt": 4, "take": agreed.to("job-take")[0].headers["x-take-id"]}
