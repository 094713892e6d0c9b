"""The service assigns a job again while this worker holds it: it ends once, and nothing waits for a lease to expire.

Each test forces one order of what may cross: the assignment, the outcome, chunks, and stops of the attempt before.
"""

import asyncio
from pathlib import Path
from typing import Any

STALE = {"X-Stale": "1"}


async def echo(job: Any) -> Any:
    return job.input


async def wait_for_file(job: Any) -> str:
    job.progress("running")
    while not Path(job.input).exists():
        await asyncio.sleep(0.01)
    return "end"


def outcomes(service: Any, job: str) -> list[tuple[str, Any]]:
    """Attempt and body of each final report."""
    reports = [sent for sent in service.to("job-done") if sent.job_id == job and sent.is_final]
    return [(sent.headers.get("x-attempt"), sent.json) for sent in reports]


async def test_a_job_that_comes_with_the_stale_reply_to_its_own_outcome_is_not_lost(
    agreed: Any, start_agent: Any
) -> None:
    agreed.reassign_count = 5
    await start_agent(echo)

    await agreed.add(*({"id": f"j{n}", "input": n, "attempt": 1} for n in range(300)))
    await agreed.until(lambda: len(agreed.results()) == 300 and not agreed.reassign_count)

    twice = {sent.job_id for sent in agreed.to("job-done") if sent.headers["x-attempt"] != "1"}
    await agreed.until(lambda: sum(len(outcomes(agreed, job)) for job in agreed.results()) == 305)
    for job in twice:
        (first, body), *_, (last, same) = outcomes(agreed, job)
        assert (int(last) > int(first), same["output"]) == (True, body["output"])


async def test_a_job_assigned_again_while_its_outcome_is_in_flight_is_reported_for_the_new_attempt(
    agreed: Any, start_agent: Any, tmp_path: Path
) -> None:
    await start_agent(wait_for_file, slots=2)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.requests_to("job-done")
    agreed.delay("job-done", 0.5)
    agreed.script("job-done", (200, b"[]", STALE))
    (tmp_path / "go").touch()
    await agreed.until(lambda: outcomes(agreed, "a"))

    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})

    await agreed.until(lambda: len(outcomes(agreed, "a")) == 2)
    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["1", "2"]


async def test_a_stale_reply_to_progress_of_the_attempt_before_does_not_stop_the_new_one(
    agreed: Any, start_agent: Any, tmp_path: Path
) -> None:
    agreed.delay("job-done", 0.5)
    agreed.script("job-done", (200, b"", STALE))
    worker = await start_agent(wait_for_file, slots=2)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.requests_to("job-done")

    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await worker.logged("job.adopted")
    await asyncio.sleep(0.6)  # until the stale reply has come; that nothing stops has no event
    (tmp_path / "go").touch()

    result = await agreed.result("a")
    assert result["output"] == "end"
    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["2"]


async def test_a_new_attempt_of_a_job_that_runs_is_not_run_twice(agreed: Any, start_agent: Any, tmp_path: Path) -> None:
    runs: list[str] = []

    async def handler(job: Any) -> str:
        runs.append(job.id)
        return await wait_for_file(job)

    worker = await start_agent(handler, slots=2)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 1})
    await agreed.requests_to("job-done")
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await worker.logged("job.adopted")
    (tmp_path / "go").touch()

    await agreed.result("a")

    assert [attempt for attempt, _ in outcomes(agreed, "a")] == ["2"]
    assert runs == ["a"]


async def test_a_stream_that_is_assigned_again_starts_anew_from_its_first_chunk(
    agreed: Any, start_agent: Any, tmp_path: Path
) -> None:
    runs: list[str] = []

    async def stream(job: Any) -> Any:
        runs.append(job.id)
        number = len(runs)
        for n in range(3):
            yield f"{number}.{n}"
        while not Path(job.input).exists():
            await asyncio.sleep(0.01)
        yield f"{number}.end"

    await start_agent(stream, slots=2)
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
    agreed: Any, start_agent: Any
) -> None:
    runs: list[str] = []

    async def handler(job: Any) -> str:
        runs.append(job.id)
        job.progress("running")
        if len(runs) == 2:
            return "second"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)
        return "first"

    await start_agent(handler, stop_grace_s=20.0)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})
    await agreed.requests_to("job-done")
    agreed.script("job-done", (200, b'[{"id":"a","input":1,"attempt":2}]'))

    await agreed.stop("a")
    await agreed.add({"id": "a", "input": 1, "attempt": 2})

    await agreed.until(lambda: any(body.get("output") == "second" for _, body in outcomes(agreed, "a")))
    assert runs == ["a", "a"]


async def test_a_stop_of_the_attempt_before_does_not_hit_the_one_that_runs(
    agreed: Any, start_agent: Any, tmp_path: Path
) -> None:
    await start_agent(wait_for_file, slots=2)
    await agreed.add({"id": "a", "input": str(tmp_path / "go"), "attempt": 2})
    await agreed.requests_to("job-done")

    agreed.script("job-stop", b'{"jobsToStop":["a","gone"],"attempts":[1,3]}')
    await agreed.stop("unknown")  # answers the open poll; the next poll gets the scripted reply
    await agreed.until(lambda: outcomes(agreed, "gone"))
    (tmp_path / "go").touch()

    await agreed.until(lambda: ("2", "end") in [(n, body.get("output")) for n, body in outcomes(agreed, "a")])
    assert ("1", {"stopped": True}) in outcomes(agreed, "a")  # for the attempt that was meant, which is over
    assert outcomes(agreed, "gone") == [("3", {"stopped": True})]


async def test_a_released_job_is_named_by_its_take(agreed: Any, start_agent: Any) -> None:
    async def handler(job: Any) -> None:
        job.progress("running")
        await asyncio.sleep(60)

    worker = await start_agent(handler, grace_s=0.3)
    await agreed.add({"id": "a", "input": 1, "attempt": 4})
    await agreed.requests_to("job-done")

    assert await worker.terminate() == 0

    [job] = [job for sent in agreed.to("job-return") for job in sent.json["jobs"]]
    assert job == {"id": "a", "attempt": 4, "take": agreed.to("job-take")[0].headers["x-take-id"]}
