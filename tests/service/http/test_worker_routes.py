"""The workers' side over real HTTP: RunPod's protocol as stock SDKs of all ages speak it (B.4 to B.9, F, G)."""

from __future__ import annotations

import asyncio
import json

import pytest


async def test_an_empty_take_waits_and_is_then_answered_204(serve, workers):
    running = await serve(take_poll_timeout_s=0.1)
    plain = workers[0](running.api)
    started = asyncio.get_running_loop().time()

    reply = await running.api.get("/job-take/pod-1?gpu=A&job_in_progress=0")

    assert reply.status == 204
    assert reply.body == b""
    assert asyncio.get_running_loop().time() - started >= 0.09
    assert (await running.api.get("/job-take-batch/pod-1?gpu=A&batch_size=3")).status == 204
    assert await plain.stops() == []


async def test_a_take_that_waits_gets_the_next_job(api, plain):
    waiting = asyncio.create_task(plain.take())
    job_id = await api.run({"a": 1})

    assert await waiting == {"id": job_id, "input": {"a": 1}}


async def test_plain_workers_get_only_fields_of_the_protocol(api, plain):
    await api.run()
    reply = await api.get("/job-take/pod-1?gpu=A")

    assert reply.headers["Content-Type"] == "application/json"
    assert set(reply.json) == {"id", "input"}


async def test_a_batch_take_answers_an_array_of_at_most_batch_size(api, plain):
    ids = [await api.run() for _ in range(5)]

    assert [job["id"] for job in await plain.take_batch(3)] == ids[:3]
    assert [job["id"] for job in await plain.take_batch(3)] == ids[3:]


async def test_parallel_single_takes_each_get_their_own_job(api, plain):
    waiting = [asyncio.create_task(plain.take()) for _ in range(4)]
    ids = [await api.run() for _ in range(4)]

    assert sorted([(await take)["id"] for take in waiting]) == sorted(ids)


async def test_jobs_are_assigned_in_the_order_they_came(api, plain):
    ids = [await api.run() for _ in range(10)]

    assert [(await plain.take())["id"] for _ in ids] == ids


async def test_a_template_without_question_mark_still_works(api):
    job_id = await api.run()

    job = (await api.get("/job-take/pod-1&job_in_progress=0")).json
    done = await api.send("POST", f"/job-done/pod-1/{job_id}&isStream=false", data=b'{"output": 1}')

    assert job["id"] == job_id
    assert done.status == 200
    assert (await api.status(job_id))["workerId"] == "pod-1"


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({"output": {"ok": "é"}}, "COMPLETED", {"output": {"ok": "é"}}),
        ({"output": None}, "COMPLETED", {"output": None}),
        ({"output": ""}, "COMPLETED", {"output": ""}),
        ({"output": []}, "COMPLETED", {"output": []}),
        ({}, "COMPLETED", {}),
        (
            b'{"output": {"x": NaN, "y": [Infinity, -Infinity, 1.5]}}',
            "COMPLETED",
            {"output": {"x": None, "y": [None, None, 1.5]}},
        ),
        ({"error": "boom"}, "FAILED", {"error": "boom"}),
        ({"error": "bøøm\n"}, "FAILED", {"error": "bøøm\n"}),
        ({"error": {"a": 1}}, "FAILED", {"error": '{"a": 1}'}),
        ({"error": ["x"]}, "FAILED", {"error": '["x"]'}),
        ({"error": "x", "output": {"half": 1}}, "FAILED", {"error": "x", "output": {"half": 1}}),
        ({"output": 1, "error": None}, "COMPLETED", {"output": 1}),
        ({"output": 1, "error": ""}, "COMPLETED", {"output": 1}),
        (b'{"output": "\\ud800"}', "COMPLETED", {"output": "\ufffd"}),
        (b'{"error": "\\ud83d\\ude00 \\ud800"}', "FAILED", {"error": "\U0001f600 \ufffd"}),
    ],
)
async def test_the_status_that_a_result_leads_to(api, plain, body, status, fields):
    job_id = await api.run()
    await plain.take()

    assert (await plain.done(job_id, body)).status == 200
    view = await api.status(job_id)

    assert view["status"] == status
    assert {key: view[key] for key in ("output", "error") if key in view} == fields


async def test_a_result_without_is_stream_and_with_any_content_type_is_taken(api, plain):
    job_id = await api.run()
    await plain.take()

    reply = await api.send(
        "POST", f"/job-done/pod-1/{job_id}?gpu=A", data=b'{"output": 1}', headers={"Content-Type": "x"}
    )

    assert reply.status == 200
    assert (await api.status(job_id))["output"] == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"{" * 5000])
async def test_a_result_that_is_no_json_object_is_refused(api, plain, body):
    job_id = await api.run()
    await plain.take()

    assert (await plain.done(job_id, body)).status == 400
    assert (await api.status(job_id))["status"] == "IN_PROGRESS"


async def test_a_result_over_the_limit_fails_the_job_at_once_and_says_why(serve, workers):
    running = await serve(max_result_bytes=2 * 2**20)
    plain = workers[0](running.api)
    job_id = await running.api.run()
    await plain.take()

    reply = await plain.done(job_id, b'{"output": "' + b"x" * 2 * 2**20 + b'"}')

    assert reply.status == 400
    assert reply.json["detail"] == "bad request: body: exceeded max body size of 2MiB"
    assert (await running.api.status(job_id))["status"] == "FAILED"
    assert "exceeded max body size of 2MiB" in (await running.api.status(job_id))["error"]


async def test_the_first_result_counts_and_sending_it_again_is_acknowledged(api, plain):
    job_id = await api.run()
    await plain.take()

    for output in (1, 1, 2):
        assert (await plain.done(job_id, {"output": output})).status == 200

    assert (await api.status(job_id))["output"] == 1
    assert (await api.get("/health")).json["jobs"]["completed"] == 1


async def test_posts_of_a_worker_that_does_not_hold_the_job_change_nothing(api, plain, workers):
    job_id = await api.run()
    await plain.take()
    foreign = workers[0](api, "pod-2")

    for body in ({"output": 1}, {"error": "x"}, {"status": "IN_PROGRESS", "output": 1}):
        assert (await foreign.done(job_id, body)).status == 200
    assert (await foreign.chunk(job_id, 1)).status == 200
    assert (await foreign.done("no-such-job", {"output": 1})).status == 200

    view = await api.status(job_id)
    assert (view["status"], view["workerId"]) == ("IN_PROGRESS", "pod-1")
    assert "output" not in view


async def test_posts_through_another_endpoint_change_nothing(running, api, plain, workers):
    job_id = await api.run()
    await plain.take()

    await workers[0](running.endpoint("other")).done(job_id, {"output": 1})

    assert (await api.status(job_id))["status"] == "IN_PROGRESS"


async def test_progress_is_shown_and_replaced_by_the_result(api, plain):
    job_id = await api.run()
    await plain.take()

    await plain.done(job_id, {"status": "IN_PROGRESS", "output": "step 1"})
    assert (await api.status(job_id))["output"] == "step 1"
    await plain.done(job_id, {"status": "IN_PROGRESS", "output": {"step": 2}})
    assert (await api.status(job_id))["output"] == {"step": 2}
    await plain.done(job_id, {})

    view = await api.status(job_id)
    assert view["status"] == "COMPLETED"
    assert "output" not in view


async def test_progress_after_the_result_does_not_open_the_job_again(api, plain):
    job_id = await api.run()
    await plain.take()
    await plain.done(job_id, {"output": 1})

    assert (await plain.done(job_id, {"status": "IN_PROGRESS", "output": "late"})).status == 200

    assert (await api.status(job_id))["output"] == 1


async def test_cancel_of_a_running_job_ends_it_at_once_and_tells_the_worker(api, plain):
    job_id = await api.run()
    await plain.take()
    listening = asyncio.create_task(plain.stops())

    reply = await api.post(f"/cancel/{job_id}")

    assert reply.json["status"] == "CANCELLED"
    assert {"delayTime", "executionTime"} <= set(reply.json)
    assert await listening == [job_id]
    await plain.done(job_id, {"output": "too late"})
    assert (await api.status(job_id))["status"] == "CANCELLED"
    assert "output" not in await api.status(job_id)


async def test_a_stop_without_an_open_poll_comes_with_the_next_poll_and_once(serve, workers):
    running = await serve(take_poll_timeout_s=0.05)
    plain = workers[0](running.api)
    job_id = await running.api.run()
    await plain.take()
    await running.api.post(f"/cancel/{job_id}")

    assert await plain.stops() == [job_id]
    assert await plain.stops() == []


async def test_a_worker_that_asked_to_be_stopped_gets_no_more_jobs(serve, workers):
    running = await serve(take_poll_timeout_s=0.1)
    api, plain = running.api, workers[0](running.api)
    job_id = await api.run()
    await plain.take()
    await plain.done(job_id, {"output": 1, "stopPod": True})
    await api.run()

    assert (await api.status(job_id))["status"] == "COMPLETED"
    assert await plain.take() is None
    assert await workers[0](api, "pod-2").take() is not None


async def test_a_new_process_under_the_name_of_a_stopped_worker_gets_jobs(serve, workers):
    running = await serve(take_poll_timeout_s=0.1)
    api, plain = running.api, workers[0](running.api)
    job_id = await api.run()
    await plain.take()
    body = json.dumps({"output": 1, "stopPod": True}).encode()
    session_header = {"X-Request-ID": job_id}
    await api.send("POST", f"/job-done/pod-1/{job_id}?gpu=A", data=body, headers=session_header)
    await api.run()

    same_process = await api.get("/job-take/pod-1?gpu=A", headers=session_header)
    new_process = await api.get("/job-take/pod-1?gpu=A")

    assert same_process.status == 204
    assert new_process.status == 200


async def test_a_poll_whose_worker_hung_up_swallows_no_job(running, api, plain):
    host, port = running.server.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v2/ep/job-take/pod-9?gpu=A HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(20):
        while not running.service.takes.polls:
            await asyncio.sleep(0)
    writer.transport.abort()

    job_id = await api.run()

    assert (await plain.take())["id"] == job_id
    await plain.done(job_id, {"output": 1})
    assert "retries" not in await api.status(job_id)


async def test_an_unhealthy_worker_is_counted(api):
    await api.get("/ping/pod-1?gpu=A&status=unhealthy&check=gpu&reason=x&runpod_version=1.12.0")

    assert (await api.get("/health")).json["workers"]["unhealthy"] == 1


@pytest.mark.parametrize("job_id", ["", ",,,", "a,b,c", "%00", "x" * 3000])
async def test_a_ping_with_strange_job_ids_is_acknowledged(api, job_id):
    assert (await api.get(f"/ping/pod-1?job_id={job_id}")).status == 200


@pytest.mark.parametrize("size", ["0", "1000000", "-1", "x", "1" * 30])
async def test_a_strange_batch_size_breaks_nothing(api, size):
    await api.run()

    assert (await api.get(f"/job-take-batch/pod-1?batch_size={size}")).status in (200, 400)


async def test_every_reply_to_a_worker_names_the_extensions(api, plain):
    reply = await plain.ping()

    assert set(reply.headers["X-Worker-Extensions"].split()) == {
        "attempt",
        "chunks",
        "leases",
        "return",
        "stop",
        "take",
        "timings",
    }


async def test_a_ping_of_the_sdk_may_list_500_jobs(api, plain):
    for number in range(500):
        await api.run(number)
    held = [job["id"] for _ in range(5) for job in await plain.take_batch(100)]

    reply = await plain.ping(*held)

    assert (len(held), reply.status) == (500, 200)


async def test_health_counts_a_worker_as_running_only_for_the_endpoint_of_its_job(running, plain, workers):
    plain_worker, _ = workers
    await plain.api.run("a")
    await plain.take()
    other = running.endpoint("other")
    await plain_worker(other).ping()

    counts = (await other.get("/health")).json["workers"]

    assert (counts["running"], counts["initializing"]) == (0, 1)
