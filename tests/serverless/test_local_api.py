"""`--rp_serve_api`: the SDK's paths, a real service behind them."""

import asyncio
import json
import socket
import textwrap

import aiohttp
import pytest

CODE = """
    import runpod_worker as runpod
    def handler(job):
        if job["input"] == "stream":
            yield from "abc"
        elif job["input"] == "fail":
            raise ValueError("no")
        else:
            yield {"got": job["input"]}
    runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
"""


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
async def call(port):
    """Send a request to the API once it answers."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def call_(method, path, body=None):
            async with asyncio.timeout(30):
                while True:
                    try:
                        async with session.request(method, path, json=body) as reply:
                            return reply.status, json.loads(await reply.read() or b"null")
                    except aiohttp.ClientConnectorError:  # it is still starting
                        await asyncio.sleep(0.05)

        yield call_


async def test_jobs_run_by_themselves_and_are_answered_on_the_sdks_paths(start, port, call):
    worker = await start(textwrap.dedent(CODE), "--rp_serve_api", "--rp_api_port", str(port))

    _, done = await call("POST", "/runsync", {"input": 1})
    _, submitted = await call("POST", "/run", {"input": "stream"})
    _, waited = await call("GET", f"/v2/local/status-sync/{submitted['id']}")
    _, view = await call("GET", f"/status/{submitted['id']}")
    _, again = await call("POST", f"/status/{submitted['id']}")
    _, stream = await call("POST", f"/stream/{submitted['id']}")
    unknown, _ = await call("GET", "/status/nobody")
    _, health = await call("GET", "/health")
    nowhere, _ = await call("GET", "/elsewhere")

    assert (done["status"], done["output"]) == ("COMPLETED", [{"got": 1}])
    assert waited["status"] == "COMPLETED"
    assert view == again
    assert view["output"] == ["a", "b", "c"]
    assert [chunk["output"] for chunk in stream["stream"]] == ["a", "b", "c"]
    assert (unknown, nowhere) == (404, 404)
    assert health["jobs"]["completed"] == 2
    assert await worker.stop() == 0


async def test_a_handler_that_fails_is_a_failed_job(start, port, call):
    await start(textwrap.dedent(CODE), "--rp_serve_api", f"--rp_api_port={port}", "--rp_api_host=0.0.0.0")

    status, done = await call("POST", "/runsync", {"input": "fail"})

    assert (status, done["status"]) == (200, "FAILED")
    assert "ValueError" in done["error"]


async def test_realtime_mode_serves_its_port_and_path(start, port, call):
    await start(
        textwrap.dedent(CODE),
        RUNPOD_REALTIME_PORT=str(port),
        RUNPOD_ENDPOINT_ID="mine",
        RUNPOD_REALTIME_CONCURRENCY="2",
    )

    _, done = await call("POST", "/mine/realtime", {"id": "x", "input": 5})

    assert done["output"] == [{"got": 5}]


async def test_a_port_that_is_taken_is_said(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = await start(textwrap.dedent(CODE), "--rp_serve_api", "--rp_api_port", str(taken.getsockname()[1]))

        assert await worker.ended() == 1
        assert "cannot listen" in worker.output


async def test_a_handler_that_asks_for_a_new_worker_does_not_end_the_api(start, port, call):
    code = CODE.replace('yield {"got": job["input"]}', 'return {"refresh_worker": True}').replace(
        'yield from "abc"', "return"
    )
    await start(textwrap.dedent(code), "--rp_serve_api", "--rp_api_port", str(port))

    statuses = [(await call("POST", "/runsync", {"input": number}))[1]["status"] for number in range(3)]

    assert statuses == ["COMPLETED"] * 3
