"""Every curl call of the seed document ("Using Your API"), by the real curl against the running service.

Only the host and what stands in angle brackets is filled in.
"""

from __future__ import annotations

import asyncio
import json
import shlex

import pytest

PROMPT = "a cute magical flying dog, fantasy art drawn by disney concept artists"
OUTPUT = [{"image": "https://job.results1", "seed": 1}, {"image": "https://job.results2", "seed": 2}]

RUNSYNC = """curl -X POST https://api.runpod.ai/v2/<your-api-id>/runsync \
-H 'Content-Type: application/json'                             \
-H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'    \
-d '{"input": {<your-input-json}}'"""

RUNSYNC_EXAMPLE = """curl -X POST https://api.runpod.ai/v2/<your-api-id>/runsync \
-H 'Content-Type: application/json'                             \
-H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'    \
-d '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'"""

RUN = RUNSYNC.replace("/runsync", "/run")
RUN_EXAMPLE = RUNSYNC_EXAMPLE.replace("/runsync", "/run")
JSON = "-H 'Content-Type: application/json'"
STATUS = "curl https://api.runpod.ai/v2/<your-api-id>/status/<your-status-id>"


@pytest.fixture
async def endpoint(api, workers):
    """The endpoint with a worker that answers every job as the seed's sample does."""
    plain = workers[0](api, "pod-1")

    async def work():
        while True:
            job = await plain.take()
            if job is not None:
                await plain.done(job["id"], {"output": OUTPUT})

    task = asyncio.create_task(work())
    yield api
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def curl(api, command: str, job_id: str = ""):
    command = command.replace("https://api.runpod.ai/v2/<your-api-id>", api.base)
    command = command.replace("{<your-input-json}", '{"prompt": "x"}').replace("<your-status-id>", job_id)
    words = [word for word in shlex.split(command) if word.strip()]
    process = await asyncio.create_subprocess_exec(*words, "-sS", stdout=-1, stderr=-1)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.mark.parametrize("command", [RUNSYNC, RUNSYNC_EXAMPLE])
async def test_runsync(endpoint, command):
    view = await curl(endpoint, command)

    assert set(view) == {"delayTime", "executionTime", "gpu", "id", "input", "output", "status", "workerId"}
    assert view["status"] == "COMPLETED"
    assert view["output"] == OUTPUT
    assert view["input"]["prompt"] in ("x", PROMPT)


@pytest.mark.parametrize("command", [RUN, RUN_EXAMPLE])
async def test_run_and_status(endpoint, command):
    submitted = await curl(endpoint, command)
    assert set(submitted) == {"id", "status"}
    assert submitted["status"] == "IN_QUEUE"

    await endpoint.get(f"/status-sync/{submitted['id']}")
    view = await curl(endpoint, STATUS, submitted["id"])

    assert (view["status"], view["output"]) == ("COMPLETED", OUTPUT)


async def test_status_of_a_job_in_progress(api, plain):
    submitted = await curl(api, RUN_EXAMPLE)
    await plain.take()

    view = await curl(api, STATUS, submitted["id"])

    assert {"delayTime", "id", "input", "status"} <= set(view)
    assert (view["status"], view["input"]) == ("IN_PROGRESS", {"prompt": PROMPT})


async def test_curl_that_asks_before_it_sends_a_large_body_is_told_to_go_on(api, plain, tmp_path):
    path = tmp_path / "body.json"
    path.write_text(json.dumps({"input": "x" * 2_000_000}))
    command = (
        f"curl -X POST {api.base}/run -H 'Expect: 100-continue' {JSON} --expect100-timeout 30 --data-binary @{path}"
    )

    submitted = await curl(api, command)

    assert submitted["status"] == "IN_QUEUE"
    assert len((await plain.take())["input"]) == 2_000_000
