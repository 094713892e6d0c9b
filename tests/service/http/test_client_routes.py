"""The callers' side over real HTTP (protocol A.2 to A.7, A.10)."""

from __future__ import annotations

import asyncio
import json

import pytest

from runpod_worker.core.protocol import MIB

JSON = {"Content-Type": "application/json"}


async def test_run_answers_id_and_status_at_once(api):
    reply = await api.post("/run", {"input": {"prompt": "x"}})

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json == {"id": reply.json["id"], "status": "IN_QUEUE"}


async def test_runsync_answers_the_seeds_sample_with_alphabetical_keys(api, plain):
    call = asyncio.create_task(api.post("/runsync", {"input": {"prompt": "a dog"}}))
    job = await plain.take()
    await plain.done(job["id"], {"output": [{"image": "https://job.results1", "seed": 1}]})

    reply = await call

    assert reply.status == 200
    view = reply.json
    assert view["id"].startswith("sync-")
    assert view["input"] == {"prompt": "a dog"}
    assert view["output"] == [{"image": "https://job.results1", "seed": 1}]
    assert (view["status"], view["gpu"], view["workerId"]) == ("COMPLETED", "NVIDIA A40", "pod-1")
    assert list(view) == sorted(view)
    assert {type(view["delayTime"]), type(view["executionTime"])} == {int}


async def test_runsync_whose_wait_is_over_answers_the_job_as_it_is(serve):
    running = await serve(runsync_poll_timeout_s=0.05)

    reply = await running.api.post("/runsync", {"input": 1})

    assert reply.status == 200
    assert reply.json == {"id": reply.json["id"], "status": "IN_QUEUE"}


async def test_long_polls_send_spaces_that_json_ignores(serve):
    running = await serve(keepalive_s=0.05, runsync_poll_timeout_s=0.3)

    reply = await running.api.post("/runsync", {"input": 1})

    assert reply.body.startswith(b"  ")
    assert reply.json["status"] == "IN_QUEUE"


async def test_a_long_poll_that_has_sent_spaces_ends_with_the_result(serve, workers):
    running = await serve(keepalive_s=0.05)
    plain = workers[0](running.api)
    async with running.api.session.post(f"{running.api.base}/runsync", json={"input": 1}) as response:
        await response.content.readexactly(1)
        job = await plain.take()
        await plain.done(job["id"], {"output": 7})

        assert json.loads(await response.read())["output"] == 7


@pytest.mark.parametrize("source", [{}, [], "", 0, None, False, {"input": {"input": {}}}, {"å": "😀"}, 1e308])
async def test_any_json_value_reaches_the_worker_as_it_is(api, plain, source):
    await api.post("/run", {"input": source})

    job = await plain.take()

    assert job["input"] == source
    assert type(job["input"]) is type(source)


async def test_the_job_object_carries_webhook_and_s3_config(api, plain):
    s3 = {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "d"}
    await api.run(webhook="https://example.org/hook", s3Config=s3)

    job = await plain.take()

    assert (job["webhook"], job["s3Config"]) == ("https://example.org/hook", s3)
    assert set(job) == {"id", "input", "webhook", "s3Config"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "input: missing"),
        (b'{"input": NaN}', "NaN is not JSON"),
        (b'{"input": "\xff"}', "body"),
        (b'{"input": 1, "policy": {"ttl": "x"}}', "policy.ttl: expected int"),
        (
            b'{"input": 1, "policy": {"ttl": 9999}}',
            "policy.ttl: expected milliseconds from 10000 to 604800000, got 9999",
        ),
        (b'{"input": 1, "policy": {"executionTimeout": 604800001}}', "policy.executionTimeout"),
        (b'{"input": 1, "policy": {"lowPriority": 1}}', "policy.lowPriority: expected bool"),
        (b'{"input": 1, "webhook": 5}', "webhook: expected str"),
        (b'{"input": 1, "webhook": "ftp://a"}', "webhook: expected http"),
        (b'{"input": 1, "webhook": "http://127.0.0.1/x"}', "webhook: 127.0.0.1 is not a public address"),
        (b'{"input": 1, "webhook": "http://localhost:1/x"}', "webhook: localhost is not a public address"),
        (b'{"input": ' + b"[" * 200_000, "expected at most 256 levels"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_envelope_and_the_fields_name(api, body, words):
    for path in ("/run", "/runsync"):
        reply = await api.send("POST", path, data=body, headers=JSON)

        assert reply.status == 400
        assert reply.json["status"] == 400
        assert reply.json["title"] == "Bad Request"
        assert words in reply.json["detail"]
        assert set(reply.json) == {"status", "title", "detail"}


@pytest.mark.parametrize(("path", "limit"), [("/run", 10), ("/runsync", 20)])
async def test_an_oversize_body_is_refused_in_the_platforms_words(api, path, limit):
    body = b'{"input": "' + b"x" * (limit * MIB) + b'"}'

    async def in_pieces():
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    for data in (body, in_pieces()):
        reply = await api.send("POST", path, data=data, headers=JSON)

        assert reply.status == 400
        assert reply.json["detail"] == f"bad request: body: exceeded max body size of {limit}MiB"


async def test_a_body_of_the_limit_is_taken(api, plain):
    body = b'{"input": "' + b"x" * (10 * MIB - 13) + b'"}'
    assert len(body) == 10 * MIB

    assert (await api.send("POST", "/run", data=body, headers=JSON)).status == 200
    assert len((await plain.take())["input"]) == 10 * MIB - 13


async def test_status_of_a_queued_a_running_and_an_ended_job(api, plain):
    job_id = await api.run({"a": 1})
    assert await api.status(job_id) == {"id": job_id, "status": "IN_QUEUE"}

    await plain.take()
    running = await api.status(job_id)
    assert {key: running[key] for key in ("id", "input", "status", "workerId")} == {
        "id": job_id,
        "input": {"a": 1},
        "status": "IN_PROGRESS",
        "workerId": "pod-1",
    }
    assert "executionTime" not in running
    assert "output" not in running

    await plain.done(job_id, {"output": None})
    ended = await api.status(job_id)
    assert ended["status"] == "COMPLETED"
    assert ended["output"] is None


@pytest.mark.parametrize("verb", ["status", "status-sync", "stream"])
async def test_reading_a_job_works_with_get_and_post(api, plain, verb):
    job_id = await api.run()
    await plain.take()
    await plain.done(job_id, {"output": 1})

    for method in ("GET", "POST"):
        reply = await api.send(method, f"/{verb}/{job_id}")

        assert reply.status == 200
        assert reply.json["status"] == "COMPLETED"


async def test_status_sync_answers_as_soon_as_the_job_ends(api, plain):
    job_id = await api.run()
    waiting = asyncio.create_task(api.get(f"/status-sync/{job_id}?wait=90000"))
    await plain.take()
    await plain.done(job_id, {"output": 5})

    assert (await waiting).json["output"] == 5


async def test_status_sync_answers_the_job_as_it_is_after_the_wait(serve):
    running = await serve(wait_bounds_ms=(10, 20))
    job_id = await running.api.run()

    assert (await running.api.get(f"/status-sync/{job_id}?wait=90000")).json == {"id": job_id, "status": "IN_QUEUE"}


async def test_status_sets_the_ttl_that_it_is_given(running, api):
    job_id = await api.run()

    assert (await api.get(f"/status/{job_id}?ttl=20000")).json["status"] == "IN_QUEUE"
    assert (await api.get(f"/status/{job_id}?ttl=soon")).status == 400

    job = running.server.queue.jobs.get(job_id)
    assert 20_000 <= job.policy.ttl_ms < 40_000


@pytest.mark.parametrize("path", ["/runsync", "/status-sync/{id}", "/stream/{id}"])
async def test_a_wait_that_is_no_number_is_refused(api, path):
    job_id = await api.run()

    reply = await api.post(path.format(id=job_id) + "?wait=soon", {"input": 1})

    assert reply.status == 400
    assert reply.json["detail"] == "wait: expected milliseconds as a whole number, got 'soon'"


@pytest.mark.parametrize("verb", ["status", "status-sync", "stream", "cancel", "retry"])
async def test_a_job_of_another_endpoint_is_not_found(running, api, verb):
    job_id = await api.run()

    for other in (running.endpoint("other").base + f"/{verb}/{job_id}", f"{api.base}/{verb}/no-such-job"):
        async with api.session.post(other) as reply:
            assert reply.status == 404
            assert await reply.json() == {"status": 404, "title": "Not Found", "detail": "job not found"}


async def test_cancel_of_a_queued_job(api, plain):
    job_id = await api.run()

    reply = await api.post(f"/cancel/{job_id}", {})

    assert reply.json == {"id": job_id, "status": "CANCELLED"}
    assert (await api.get("/health")).json["jobs"]["inQueue"] == 0


async def test_cancel_of_an_ended_job_changes_nothing(api, plain):
    job_id = await api.run()
    await plain.take()
    await plain.done(job_id, {"output": 1})

    assert (await api.post(f"/cancel/{job_id}")).json["status"] == "COMPLETED"
    assert (await api.status(job_id))["status"] == "COMPLETED"


async def test_retry_runs_a_failed_job_again_with_its_input(api, plain):
    job_id = await api.run({"a": 1})
    await plain.take()
    await plain.done(job_id, {"error": "no", "output": {"half": 1}})
    assert (await api.status(job_id))["output"] == {"half": 1}

    reply = await api.post(f"/retry/{job_id}")

    assert reply.json == {"id": job_id, "status": "IN_QUEUE"}
    assert (await plain.take())["input"] == {"a": 1}
    running = await api.status(job_id)
    assert running["retries"] == 1
    assert "output" not in running
    assert "error" not in running


async def test_retry_of_a_completed_job_is_refused(api, plain):
    job_id = await api.run()
    await plain.take()
    await plain.done(job_id, {"output": 1})

    assert (await api.post(f"/retry/{job_id}")).status == 409


async def test_purge_queue_cancels_only_queued_jobs(api, plain):
    running_id, queued = await api.run(), [await api.run() for _ in range(3)]
    await plain.take()

    reply = await api.post("/purge-queue")

    assert reply.json == {"removed": 3, "status": "completed"}
    assert (await api.status(running_id))["status"] == "IN_PROGRESS"
    assert [(await api.status(job_id))["status"] for job_id in queued] == ["CANCELLED"] * 3


async def test_health_counts_jobs_and_workers(api, plain, workers):
    for body in ({"output": 1}, {"error": "x"}):
        job_id = await api.run()
        await plain.take()
        await plain.done(job_id, body)
    await api.run()
    await plain.take()
    await api.run()
    await workers[0](api, "pod-2").ping()

    reply = await api.get("/health")

    assert reply.json == {
        "jobs": {"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0},
        "workers": {"idle": 0, "initializing": 1, "ready": 0, "running": 1, "throttled": 0, "unhealthy": 0},
    }


async def test_low_priority_waits_for_the_others(api, plain):
    low = await api.run(policy={"lowPriority": True})
    high = await api.run()

    assert [(await plain.take())["id"], (await plain.take())["id"]] == [high, low]


async def test_a_full_backlog_is_answered_429(serve):
    running = await serve(max_backlog_jobs=2)
    await running.api.run()
    await running.api.run()

    reply = await running.api.post("/run", {"input": 1})

    assert reply.status == 429
    assert reply.json["title"] == "Too Many Requests"


async def test_timings_are_shown_to_those_who_ask(api, ours):
    job_id = await api.run()
    job = await ours.take()
    await ours.done(job, {"output": 1, "timings": {"started": 1.5, "finished": 2.0}})

    assert "timings" not in await api.status(job_id)
    assert (await api.get(f"/status/{job_id}?timings=true")).json["timings"] == {"started": 1.5, "finished": 2.0}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/run", 405),
        ("DELETE", "/status/x", 405),
        ("GET", "/nothing", 404),
        ("GET", "/status", 404),
        ("GET", "/status/a/b", 404),
        ("GET", "", 404),
        ("GET", "/job-take/", 404),
        ("GET", "/run%2f%00", 404),
    ],
)
async def test_an_unknown_route_is_answered_with_the_envelope(api, method, path, status):
    reply = await api.send(method, path)

    assert reply.status == status
    assert reply.json["status"] == status


async def test_paths_outside_v2_are_not_found(api):
    async with api.session.get(api.url + "/favicon.ico") as reply:
        assert reply.status == 404
        assert (await reply.json())["title"] == "Not Found"


async def test_an_unexpected_error_is_logged_with_an_id_and_shows_no_traceback(running, api, caplog):
    async def broken(job_id):
        raise RuntimeError("secret detail")

    running.server.queue.jobs.get_committed = broken

    reply = await api.get("/status/x")

    assert reply.status == 500
    assert b"secret" not in reply.body
    error_id = reply.json["detail"].rsplit(" ", 1)[1]
    assert [record.error_id for record in caplog.records if record.message == "request.failed"] == [error_id]
