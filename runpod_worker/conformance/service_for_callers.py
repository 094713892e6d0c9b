"""The promises of a job service to its callers."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

from .check import require, require_equal, truncate
from .service_suite import KEYS, SLOW, check, complete_job, require_integers
from .service_under_test import ServiceUnderTest

JSON = {"Content-Type": "application/json"}

# ------------------------------------------------------------ submit and look


@check("A.2")
async def run_answers_200_with_an_id_and_IN_QUEUE(service: ServiceUnderTest) -> None:  # noqa: N802 - the platform's word
    view = await service.call("POST", "run", {"input": {"n": 1}})
    require(set(view) >= {"id", "status"}, f"expected id and status, got {truncate(view)}")
    require_equal(view["status"], "IN_QUEUE", "status")
    require(re.fullmatch(r"[A-Za-z0-9_-]+", view["id"]), f"id: expected letters, digits, _ and -, got {view['id']!r}")
    require_equal((await service.get_view(view["id"]))["status"], "IN_QUEUE", "status of a job without a worker")


@check("A.2")
async def runsync_waits_for_the_result(service: ServiceUnderTest) -> None:
    sent = asyncio.create_task(service.call("POST", "runsync", {"input": {"n": 1}}))
    worker = service.new_worker()
    await worker.finish(await worker.take(), {"output": "x"})
    view = await sent
    require_equal((view["status"], view.get("output")), ("COMPLETED", "x"), "status and output")


@check("A.2")
async def runsync_answers_when_its_wait_is_over(service: ServiceUnderTest) -> None:
    view = await service.call("POST", "runsync?wait=1000", {"input": {"n": 1}})
    require_equal(view["status"], "IN_QUEUE", "status")
    require(isinstance(view.get("id"), str), f"expected an id, got {truncate(view)}")


@check("G.7")
async def status_answers_GET_and_POST(service: ServiceUnderTest) -> None:  # noqa: N802
    job_id = await service.submit({"n": 1})
    require_equal(
        await service.call("GET", f"status/{job_id}"), await service.call("POST", f"status/{job_id}"), "POST /status"
    )


@check("A.2")
async def status_sync_waits_for_the_end(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    for method in ("GET", "POST"):
        sent = asyncio.create_task(service.call(method, f"status-sync/{job['id']}?wait=20000"))
        await worker.finish(job, {"output": 1})
        require_equal((await sent)["status"], "COMPLETED", f"status of {method} /status-sync")


@check("A.5")
async def a_completed_job_shows_output_times_and_worker(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": {"a": [1, None]}})
    view = await service.until_status(job, "COMPLETED")
    require_equal(view.get("output"), {"a": [1, None]}, "output")
    require_equal(view.get("workerId"), worker.name, "workerId")
    require_integers(view, "delayTime", "executionTime")
    require("error" not in view, f"error: expected none, got {truncate(view.get('error'))}")


@check("A.5")
async def a_running_job_shows_its_worker_and_no_output(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    view = await service.until_status(job, "IN_PROGRESS")
    require_equal(view.get("workerId"), worker.name, "workerId")
    require("output" not in view, f"output: expected none, got {truncate(view.get('output'))}")
    await worker.finish(job, {"output": 1})


@check("A.10")
async def an_unknown_job_is_404(service: ServiceUnderTest) -> None:
    for path in ("status/no-such-job", "stream/no-such-job"):
        reply = await service.send("GET", path)
        require_equal(reply.status, 404, f"status code of /{path}")


@check("A.10")
async def a_malformed_request_is_400_in_the_envelope(service: ServiceUnderTest) -> None:
    for body in (b"{", b"[]", b'{"no": "input"}', b""):
        reply = await service.send("POST", "run", data=body, headers=JSON)
        require_equal(reply.status, 400, f"status code for {body!r}")
        require(
            {"status", "title", "detail"} <= set(reply.json),
            f"expected status, title, detail, got {truncate(reply.json)}",
        )


@check("G.12")
async def a_body_over_10_MiB_is_refused_with_the_known_message(service: ServiceUnderTest) -> None:  # noqa: N802
    body = io.BytesIO(b'{"input": {"x": "%s"}}' % (b"y" * (11 * 2**20)))
    reply = await service.send("POST", "run", data=body, headers=JSON)
    require_equal(reply.status, 400, "status code")
    require(b"exceeded max body size of" in reply.body, f"expected the known message, got {truncate(reply.body)}")


@check("A.1", group=KEYS)
async def a_key_is_needed_and_may_come_with_or_without_Bearer(service: ServiceUnderTest) -> None:  # noqa: N802
    require_equal(
        (await service.send("GET", "health", key=f"Bearer {service.key}")).status, 200, "status code with Bearer"
    )
    require_equal((await service.send("GET", "health", key=str(service.key))).status, 200, "status code without Bearer")
    require_equal((await service.send("GET", "health", key="Bearer wrong")).status, 401, "status code with a wrong key")


@check("A.7")
async def health_counts_jobs_and_workers(service: ServiceUnderTest) -> None:
    before = (await service.call("GET", "health"))["jobs"]
    _, job = await service.start_job({"n": 1})
    waiting = await service.submit({"n": 2})
    health = await service.call("GET", "health")
    require_integers(health["jobs"], "completed", "failed", "inProgress", "inQueue", "retried")
    require_integers(health["workers"], "idle", "initializing", "ready", "running", "throttled", "unhealthy")
    require_equal(health["jobs"]["inQueue"], before["inQueue"] + 1, "jobs.inQueue")
    require_equal(health["jobs"]["inProgress"], before["inProgress"] + 1, "jobs.inProgress")
    for job_id in (job["id"], waiting):
        await service.call("POST", f"cancel/{job_id}")


# ------------------------------------------------------------ cancel, purge and retry


@check("A.2")
async def a_queued_job_can_be_cancelled(service: ServiceUnderTest) -> None:
    job_id = await service.submit({"n": 1})
    require_equal((await service.call("POST", f"cancel/{job_id}"))["status"], "CANCELLED", "status")
    following, worker = await service.submit({"n": 2}), service.new_worker()
    job = await worker.take()
    require_equal(job["id"], following, "the job taken next")
    await worker.finish(job, {"output": 1})


@check("A.2")
async def cancelling_an_ended_job_changes_nothing(service: ServiceUnderTest) -> None:
    job_id = await complete_job(service, "x")
    require_equal((await service.call("POST", f"cancel/{job_id}"))["status"], "COMPLETED", "status")


@check("A.2")
async def purge_queue_removes_queued_jobs_only(service: ServiceUnderTest) -> None:
    worker, running = await service.start_job({"n": 0})
    queued = [await service.submit({"n": n}) for n in range(3)]
    reply = await service.call("POST", "purge-queue")
    require_equal(reply, {"removed": 3, "status": "completed"}, "the reply")
    require_equal((await service.get_view(running))["status"], "IN_PROGRESS", "status of the running job")
    await worker.finish(running, {"output": 1})
    purged = await service.send("GET", f"status/{queued[0]}")
    require(purged.status == 404 or purged.json["status"] == "CANCELLED", f"a purged job: {truncate(purged.body)}")


@check("A.2")
async def a_failed_job_can_be_retried_under_its_id(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"error": "broke", "output": {"half": 1}})
    await service.until_status(job, "FAILED")
    retried = await service.call("POST", f"retry/{job['id']}")
    require_equal((retried.get("id"), retried.get("status")), (job["id"], "IN_QUEUE"), "id and status")
    again = await worker.take()
    require_equal(
        again, {**job, **{key: again[key] for key in again if key not in ("id", "input")}}, "the job taken again"
    )
    await worker.finish(again, {"output": "now"})
    view = await service.until_status(job, "COMPLETED")
    require_equal((view.get("output"), view.get("error")), ("now", None), "output and error")


@check("A.3", group=SLOW)
async def a_job_over_its_executionTimeout_fails_and_is_stopped(service: ServiceUnderTest) -> None:  # noqa: N802
    worker, job = await service.start_job({"n": 1}, policy={"executionTimeout": 5000})
    pinging = asyncio.create_task(worker.ping_until_cancelled(job))
    try:
        require_equal(await worker.receive_stops(), [job["id"]], "jobsToStop")
        view = await service.until_status(job, "FAILED")
    finally:
        pinging.cancel()
    require_equal(view.get("error"), "executionTimeout exceeded", "error")


# ------------------------------------------------------------ streams


@check("A.6")
async def stream_gives_each_chunk_once_and_the_end_with_the_last(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    values: list[Any] = ["a", {"b": None}, 3]
    for value in values:
        await worker.send_chunk(job, value)
    first = await service.call("GET", f"stream/{job['id']}")
    require_equal([chunk["output"] for chunk in first["stream"]], values, "chunks")
    require_equal(first["status"], "IN_PROGRESS", "status")
    await worker.send_chunk(job, "last")
    await worker.end_stream(job)
    tail: list[Any] = []
    status = "IN_PROGRESS"
    while status == "IN_PROGRESS":
        reply = await service.call("POST", f"stream/{job['id']}")
        tail, status = tail + [chunk["output"] for chunk in reply["stream"]], reply["status"]
    require_equal((tail, status), (["last"], "COMPLETED"), "the last chunk and the status")


@check("G.7")
async def stream_always_has_its_array(service: ServiceUnderTest) -> None:
    job_id = await complete_job(service, "x")
    require_equal((await service.call("GET", f"stream/{job_id}")).get("stream"), [], "stream of a job without chunks")


@check("A.6")
async def stream_waits_for_a_chunk(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    sent = asyncio.create_task(service.call("GET", f"stream/{job['id']}"))
    await asyncio.sleep(0.5)
    require(not sent.done(), "answered at once without a chunk")
    await worker.send_chunk(job, "late")
    require_equal([chunk["output"] for chunk in (await sent)["stream"]], ["late"], "chunks")
    await worker.end_stream(job)


@check("B.7")
async def an_aggregated_stream_is_also_the_output(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.send_chunk(job, "a")
    await worker.end_stream(job, ["a"])
    require_equal((await service.until_status(job, "COMPLETED")).get("output"), ["a"], "output")


# ------------------------------------------------------------ OpenAI routes


@check("D.6")
async def an_openai_request_is_a_job_whose_only_chunk_is_the_body(service: ServiceUnderTest) -> None:
    body = {"model": "m", "messages": []}
    sent = asyncio.create_task(service.send("POST", "openai/v1/chat/completions", json=body))
    worker = service.new_worker()
    job = await worker.take()
    require_equal(job["input"], {"openai_route": "/v1/chat/completions", "openai_input": body}, "input")
    await worker.send_chunk(job, {"id": "x"})
    await worker.end_stream(job, [{"id": "x"}])
    reply = await sent
    require_equal((reply.status, reply.json), (200, {"id": "x"}), "the reply")


@check("D.6")
async def an_openai_request_without_a_body_is_its_route(service: ServiceUnderTest) -> None:
    sent = asyncio.create_task(service.send("GET", "openai/v1/models"))
    worker = service.new_worker()
    job = await worker.take()
    require_equal(job["input"], {"openai_route": "/v1/models"}, "input")
    await worker.finish(job, {"output": [{"object": "list"}]}, query="&isStream=true")
    require_equal((await sent).json, {"object": "list"}, "the body")


@check("D.6")
async def an_openai_stream_passes_through_byte_for_byte(service: ServiceUnderTest) -> None:
    pieces = ["data: {", '"é": 1}\n', "\ndata: [DONE]\n\n"]
    sent = asyncio.create_task(service.send("POST", "openai/v1/chat/completions", json={"stream": True}))
    worker = service.new_worker()
    job = await worker.take()
    for piece in pieces:
        await worker.send_chunk(job, piece)
    await worker.end_stream(job, pieces)
    reply = await sent
    require_equal((reply.content_type, reply.body.decode()), ("text/event-stream", "".join(pieces)), "the reply")


@check("D.6")
async def a_failed_openai_request_has_an_openai_error(service: ServiceUnderTest) -> None:
    sent = asyncio.create_task(service.send("POST", "openai/v1/chat/completions", json={}))
    worker = service.new_worker()
    await worker.finish(await worker.take(), {"error": "{'message': 'no', 'type': 'BadRequestError', 'code': 400}"})
    reply = await sent
    require(reply.status >= 400, f"status code: expected an error, got {reply.status}")
    require_equal(reply.json.get("error", {}).get("message"), "no", "error.message")
