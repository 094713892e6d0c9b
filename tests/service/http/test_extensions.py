"""What docs/extensions.md adds to the protocol, over real HTTP."""

from __future__ import annotations

import asyncio

from runpod_worker.service.queue.polls import TakeRequest


async def test_the_job_object_is_counted(api, ours):
    await api.run({"a": 1}, policy={"executionTimeout": 60_000})

    job = await ours.take()

    assert job["attempt"] == 1
    assert 39_000 < job["leaseMs"] <= 40_000
    assert 59_000 < job["timeoutMs"] <= 60_000


async def test_a_result_brings_the_next_jobs(api, ours):
    ids = [await api.run(n) for n in range(4)]
    first = await ours.take()

    reply = await ours.done(first, {"output": 1}, want=2)

    assert reply.headers["Content-Type"] == "application/json"
    assert [job["id"] for job in reply.json] == ids[1:3]
    assert [job["attempt"] for job in reply.json] == [1, 1]
    assert (await api.status(ids[1]))["status"] == "IN_PROGRESS"
    assert (await api.status(ids[0]))["status"] == "COMPLETED"


async def test_a_result_with_an_empty_backlog_brings_an_empty_array_at_once(api, ours):
    await api.run()
    job = await ours.take()

    assert (await ours.done(job, {"output": 1}, want=1)).json == []


async def test_a_result_that_asks_for_no_job_gets_an_empty_reply(api, ours):
    await api.run()
    await api.run()
    job = await ours.take()

    assert (await ours.done(job, {"output": 1}, want=0)).body == b""
    assert (await api.get("/health")).json["jobs"]["inQueue"] == 1


async def test_progress_brings_no_jobs(api, ours):
    await api.run()
    await api.run()
    job = await ours.take()

    assert (await ours.done(job, {"status": "IN_PROGRESS", "output": 1}, want=1)).body == b""


async def test_a_result_sent_again_under_the_same_name_brings_the_same_jobs(api, ours):
    ids = [await api.run() for _ in range(3)]
    job = await ours.take()
    first = await ours.done(job, {"output": 1}, want=1, token="t-1")

    again = await ours.done(job, {"output": 1}, want=1, token="t-1")

    assert [job["id"] for job in first.json] == [job["id"] for job in again.json] == [ids[1]]
    assert again.headers["X-Stale"] == "1"


async def test_a_take_sent_again_under_the_same_name_gets_the_same_job(api, ours):
    ids = [await api.run() for _ in range(2)]

    assert (await ours.take("t-1"))["id"] == (await ours.take("t-1"))["id"] == ids[0]


async def test_a_report_of_a_stale_attempt_says_so_and_changes_nothing(api, ours):
    job_id = await api.run()
    job = await ours.take()

    reply = await ours.done(job, {"output": 1}, attempt=2)

    assert (reply.status, reply.headers.get("X-Stale")) == (200, "1")
    assert (await api.status(job_id))["status"] == "IN_PROGRESS"
    assert "X-Stale" not in (await ours.done(job, {"output": 1})).headers


async def test_several_chunks_in_one_post_and_a_post_sent_again(api, ours):
    job_id = await api.run()
    job = await ours.take()

    await ours.chunks(job, ["a", "b"], 0)
    await ours.chunks(job, ["a", "b", "c"], 0)
    await ours.chunks(job, ["d"], 3)

    stream = (await api.get(f"/stream/{job_id}")).json
    assert stream == {"status": "IN_PROGRESS", "stream": [{"output": letter} for letter in "abcd"]}


async def test_cancel_waits_until_the_worker_has_stopped(api, ours):
    job_id = await api.run()
    job = await ours.take()
    listening = asyncio.create_task(ours.stops())
    cancelling = asyncio.create_task(api.post(f"/cancel/{job_id}"))

    assert await listening == [job_id]
    assert (await api.status(job_id))["status"] == "IN_PROGRESS"
    await ours.done(job, {"stopped": True})

    assert (await cancelling).json["status"] == "CANCELLED"


async def test_cancel_of_a_worker_that_does_not_confirm_answers_the_job_as_it_is(serve, workers):
    running = await serve(cancel_poll_timeout_s=0.05)
    ours = workers[1](running.api)
    job_id = await running.api.run()
    job = await ours.take()

    assert (await running.api.post(f"/cancel/{job_id}")).json["status"] == "IN_PROGRESS"

    await ours.done(job, {"output": "finished before the stop came"})
    view = await running.api.status(job_id)
    assert view["status"] == "CANCELLED"
    assert "output" not in view


async def test_released_jobs_are_requeued_without_an_attempt_spent(api, ours):
    ids = [await api.run() for _ in range(2)]
    first, second = await ours.take(), await ours.take()

    assert await ours.release(jobs=[{"id": job["id"], "attempt": job["attempt"]} for job in (first, second)]) == 2

    again = [await ours.take(), await ours.take()]
    assert [job["id"] for job in again] == ids
    assert [job["attempt"] for job in again] == [1, 1]
    assert "retries" not in await api.status(ids[0])


async def test_a_released_job_wakes_another_worker_that_waits(api, ours, workers):
    await api.run()
    job = await ours.take()
    other = asyncio.create_task(workers[1](api, "w-2").take())
    await api.get("/health")

    await ours.release(jobs=[{"id": job["id"], "attempt": 1}])

    assert (await other)["id"] == job["id"]


async def test_a_released_take_releases_the_jobs_it_assigned(api, ours):
    job_id = await api.run()
    await ours.take("lost-reply")

    assert await ours.release(takes=["lost-reply"]) == 1
    assert (await api.status(job_id))["status"] == "IN_QUEUE"


async def test_a_late_release_does_not_take_the_job_from_its_next_run(api, ours):
    job_id = await api.run()
    first = await ours.take("first")
    named = {"id": job_id, "attempt": first["attempt"], "take": "first"}
    assert await ours.release(jobs=[named]) == 1
    second = await ours.take("second")
    assert second["attempt"] == first["attempt"]

    assert await ours.release(jobs=[named]) == 0

    assert (await api.get("/health")).json["jobs"]["inQueue"] == 0
    assert (await ours.done(second, {"output": 1})).status == 200
    assert (await api.status(job_id))["status"] == "COMPLETED"


async def test_a_lost_reply_releases_only_the_jobs_of_its_own_take(running, api, ours):
    job_id = await api.run()
    ask = TakeRequest(endpoint="ep", worker=ours.name, id="cut", counted=True)
    assigned = await running.service.takes.take(ask, 0)
    await ours.release(takes=["cut"])
    again = await ours.take("again")
    assert again["id"] == job_id

    await running.service.takes.release_undelivered(ask, assigned)  # as the handler of the cut connection does, late

    assert (await ours.done(again, {"output": 1})).status == 200
    assert (await api.status(job_id))["status"] == "COMPLETED"


async def test_a_stop_names_the_attempt_that_is_meant(api, ours):
    job_id = await api.run()
    await ours.take()
    await api.post(f"/cancel/{job_id}", {})

    reply = await api.get(f"/job-stop/{ours.name}", headers=ours.headers())

    assert reply.json == {"jobsToStop": [job_id], "attempts": [1]}


async def test_a_released_take_that_is_still_open_or_comes_later_gets_no_job(api, ours):
    waiting = asyncio.create_task(ours.take("open"))
    await api.get("/health")
    assert await ours.release(takes=["open", "later"]) == 0
    assert await waiting is None

    await api.run()

    assert await ours.take("open") is None
    assert await ours.take("later") is None
    assert await ours.take("fresh") is not None


async def test_a_reported_job_is_not_released(api, ours):
    job_id = await api.run()
    job = await ours.take("t")
    await ours.done(job, {"output": 1})

    assert await ours.release(takes=["t"], jobs=[{"id": job_id, "attempt": 1}]) == 0
    assert (await api.status(job_id))["status"] == "COMPLETED"


async def test_no_worker_releases_the_jobs_of_another_worker_or_endpoint(running, api, ours, workers):
    job_id = await api.run()
    job = await ours.take("t")
    named = [{"id": job["id"], "attempt": 1}]

    assert await workers[1](api, "w-2").release(takes=["t"], jobs=named) == 0
    assert await workers[1](running.endpoint("other"), "w-1").release(takes=["t"], jobs=named) == 0
    assert (await api.status(job_id))["status"] == "IN_PROGRESS"


async def test_an_older_progress_is_dropped(api, ours):
    job_id = await api.run()
    job = await ours.take()

    for seq, value in ((1, "one"), (3, "three"), (2, "two")):
        await ours.done(job, {"status": "IN_PROGRESS", "output": value, "seq": seq})

    assert (await api.status(job_id))["output"] == "three"


async def test_a_strange_take_name_is_refused(api):
    for name in ("a b", "x" * 65, "ä"):
        headers = {"X-Worker-Extensions": "take", "X-Take-Id": name.encode("latin-1").decode("latin-1")}
        assert (await api.get("/job-take/w", headers=headers)).status == 400


async def test_garbage_on_every_worker_route_is_refused_not_crashed(api, ours):
    await api.run()
    job = await ours.take()
    for path in (f"/job-stream/w-1/{job['id']}", "/job-return/w-1"):
        for body in (b"", b"{", b"[]", b'{"outputs": 1}', b'{"outputs": [1]}', b'{"takes": 1}', b'{"jobs": [{}]}'):
            reply = await api.send("POST", path, data=body)
            assert reply.status == 400 or (reply.status == 200 and path.startswith("/job-return"))
    for headers in ({"X-Attempt": "x"}, {"X-Take": "x"}, {"X-Attempt": "9" * 40}):
        assert (await api.post(f"/job-done/w-1/{job['id']}", {"output": 1}, headers=headers)).status == 400
