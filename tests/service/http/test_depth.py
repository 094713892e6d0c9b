"""Bodies that are nested too deep, and stored jobs that cannot be read, stay the trouble of their own job."""

import json

import pytest

from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.server import Stores

JSON = {"Content-Type": "application/json"}


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [256, 970, 100_000])
@pytest.mark.parametrize("verb", ["run", "runsync", "openai/v1/chat/completions"])
async def test_a_submission_nested_too_deep_is_refused(api, verb, levels):
    body = nested(levels) if verb.startswith("openai") else b'{"input":%s}' % nested(levels)

    reply = await api.send(
        "POST", f"/{verb}", data=b'{"a":%s}' % body if verb.startswith("openai") else body, headers=JSON
    )

    assert reply.status == 400
    assert b"nested" in reply.body or b"recursion" in reply.body
    assert (await api.get("/health")).json["jobs"]["inQueue"] == 0


async def test_a_submission_of_256_levels_runs_and_is_shown_again(api, plain):
    deepest = nested(255)
    job_id = json.loads((await api.send("POST", "/run", data=b'{"input":%s}' % deepest, headers=JSON)).body)["id"]

    job = await plain.take()
    done = await plain.done(job_id, b'{"output":%s}' % deepest)

    assert (job["id"], done.status) == (job_id, 200)
    assert (await api.status(job_id))["output"] == json.loads(deepest)


@pytest.mark.parametrize("levels", [256, 970])
async def test_reports_nested_too_deep_are_refused(api, plain, levels):
    job_id = await api.run()
    await plain.take()

    result = await plain.done(job_id, b'{"output":%s}' % nested(levels))
    chunk = await api.send("POST", f"/job-stream/pod-1/{job_id}", data=b'{"output":%s}' % nested(levels))
    released = await api.send("POST", "/job-return/pod-1", data=b'{"takes":[],"a":%s}' % nested(levels))

    assert [result.status, chunk.status, released.status] == [400, 400, 400]
    assert b"256 levels" in result.body
    assert (await api.status(job_id))["status"] == "IN_PROGRESS"


@pytest.fixture(
    params=[b'{"input":%s}' % nested(970), b'{"input":%s}' % nested(5000), b"\x00 no JSON"],
    ids=["deep", "deepest", "garbage"],
)
async def damaged(request, serve):
    """A service with three queued jobs, of which the second cannot be read."""
    running = await serve(Stores(journal=NullJournal()), take_poll_timeout_s=0.2)
    job_ids = [await running.api.run({"n": number}) for number in range(3)]
    running.service.jobs.bodies.put(("requests", job_ids[1]), request.param)
    return running, job_ids


async def test_a_job_that_cannot_be_read_fails_alone(damaged, workers):
    running, (first, broken, last) = damaged
    worker = workers[0](running.api)

    taken = await worker.take_batch(3)

    assert [job["id"] for job in taken] == [first, last]
    view = await running.api.status(broken)
    assert view["status"] == "FAILED"
    assert "cannot be read" in view["error"]


async def test_a_take_of_one_job_that_cannot_be_read_gets_none(damaged, workers):
    running, (first, broken, last) = damaged
    worker = workers[0](running.api)

    taken = [await worker.take() for _ in range(3)]

    assert [job and job["id"] for job in taken] == [first, None, last]
    assert (await running.api.status(broken))["status"] == "FAILED"


async def test_a_report_that_takes_a_job_that_cannot_be_read_is_accepted(damaged, workers):
    running, (first, broken, last) = damaged
    worker = workers[1](running.api)
    job = await worker.take()

    done = await worker.done(job, {"output": 1}, want=2)

    assert [job["id"] for job in done.json] == [last]
    assert (await running.api.status(first))["status"] == "COMPLETED"
    assert (await running.api.status(broken))["status"] == "FAILED"
