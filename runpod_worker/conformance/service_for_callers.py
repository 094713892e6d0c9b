"""What a job service promises its callers and, through the views they see, its workers."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

from .check import need, same, short
from .service_suite import KEYS, SLOW, check, completed, integers
from .service_under_test import Ends

# ------------------------------------------------------------ submitting and looking


@check("A.2")
async def run_answers_200_with_an_id_and_IN_QUEUE(ends: Ends) -> None:  # noqa: N802 - the platform's word
    view = await ends.call("POST", "run", {"input": {"n": 1}})
    need(set(view) >= {"id", "status"}, f"expected id and status, got {short(view)}")
    same(view["status"], "IN_QUEUE", "status")
    need(re.fullmatch(r"[A-Za-z0-9_-]+", view["id"]), f"id: expected letters, digits, _ and -, got {view['id']!r}")
    same((await ends.status(view["id"]))["status"], "IN_QUEUE", "status of a job without a worker")


@check("A.2")
async def runsync_waits_for_the_result(ends: Ends) -> None:
    asked = asyncio.create_task(ends.call("POST", "runsync", {"input": {"n": 1}}))
    pod = ends.pod()
    await pod.done(await pod.take(), {"output": "x"})
    view = await asked
    same((view["status"], view.get("output")), ("COMPLETED", "x"), "status and output")


@check("A.2")
async def runsync_answers_when_its_wait_is_over(ends: Ends) -> None:
    view = await ends.call("POST", "runsync?wait=1000", {"input": {"n": 1}})
    same(view["status"], "IN_QUEUE", "status")
    need(isinstance(view.get("id"), str), f"expected an id, got {short(view)}")


@check("G.7")
async def status_answers_GET_and_POST(ends: Ends) -> None:  # noqa: N802
    job_id = await ends.run({"n": 1})
    same(await ends.call("GET", f"status/{job_id}"), await ends.call("POST", f"status/{job_id}"), "POST /status")


@check("A.2")
async def status_sync_waits_for_the_end(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    for method in ("GET", "POST"):
        asked = asyncio.create_task(ends.call(method, f"status-sync/{job['id']}?wait=20000"))
        await pod.done(job, {"output": 1})
        same((await asked)["status"], "COMPLETED", f"status of {method} /status-sync")


@check("A.5")
async def a_completed_job_shows_output_times_and_worker(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": {"a": [1, None]}})
    view = await ends.until(job, "COMPLETED")
    same(view.get("output"), {"a": [1, None]}, "output")
    same(view.get("workerId"), pod.name, "workerId")
    integers(view, "delayTime", "executionTime")
    need("error" not in view, f"error: expected none, got {short(view.get('error'))}")


@check("A.5")
async def a_running_job_shows_its_worker_and_no_output(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    view = await ends.until(job, "IN_PROGRESS")
    same(view.get("workerId"), pod.name, "workerId")
    need("output" not in view, f"output: expected none, got {short(view.get('output'))}")
    await pod.done(job, {"output": 1})


@check("A.10")
async def an_unknown_job_is_404(ends: Ends) -> None:
    for path in ("status/no-such-job", "stream/no-such-job"):
        reply = await ends.send("GET", path)
        same(reply.status, 404, f"status code of /{path}")


@check("A.10")
async def a_request_that_is_not_understood_is_400_in_the_envelope(ends: Ends) -> None:
    for body in (b"{", b"[]", b'{"no": "input"}', b""):
        reply = await ends.send("POST", "run", data=body)
        same(reply.status, 400, f"status code for {body!r}")
        need(
            {"status", "title", "detail"} <= set(reply.json), f"expected status, title, detail, got {short(reply.json)}"
        )


@check("G.12")
async def a_body_over_10_MiB_is_refused_in_the_known_words(ends: Ends) -> None:  # noqa: N802
    body = io.BytesIO(b'{"input": {"x": "%s"}}' % (b"y" * (11 * 2**20)))
    reply = await ends.send("POST", "run", data=body)
    same(reply.status, 400, "status code")
    need(b"exceeded max body size of" in reply.body, f"expected the known words, got {short(reply.body)}")


@check("A.1", group=KEYS)
async def a_key_is_needed_and_may_come_with_or_without_Bearer(ends: Ends) -> None:  # noqa: N802
    same((await ends.send("GET", "health", key=f"Bearer {ends.key}")).status, 200, "status code with Bearer")
    same((await ends.send("GET", "health", key=str(ends.key))).status, 200, "status code without Bearer")
    same((await ends.send("GET", "health", key="Bearer wrong")).status, 401, "status code with a wrong key")


@check("A.7")
async def health_counts_jobs_and_workers(ends: Ends) -> None:
    before = (await ends.call("GET", "health"))["jobs"]
    _, job = await ends.started({"n": 1})
    waiting = await ends.run({"n": 2})
    told = await ends.call("GET", "health")
    integers(told["jobs"], "completed", "failed", "inProgress", "inQueue", "retried")
    integers(told["workers"], "idle", "initializing", "ready", "running", "throttled", "unhealthy")
    same(told["jobs"]["inQueue"], before["inQueue"] + 1, "jobs.inQueue")
    same(told["jobs"]["inProgress"], before["inProgress"] + 1, "jobs.inProgress")
    for one in (job["id"], waiting):
        await ends.call("POST", f"cancel/{one}")


# ------------------------------------------------------------ ending early


@check("A.2")
async def a_queued_job_can_be_cancelled(ends: Ends) -> None:
    job_id = await ends.run({"n": 1})
    same((await ends.call("POST", f"cancel/{job_id}"))["status"], "CANCELLED", "status")
    following, pod = await ends.run({"n": 2}), ends.pod()
    job = await pod.take()
    same(job["id"], following, "the job that is handed out after it")
    await pod.done(job, {"output": 1})


@check("A.2")
async def cancelling_what_has_ended_changes_nothing(ends: Ends) -> None:
    job_id = await completed(ends, "x")
    same((await ends.call("POST", f"cancel/{job_id}"))["status"], "COMPLETED", "status")


@check("A.2")
async def purge_queue_removes_what_is_queued_and_nothing_else(ends: Ends) -> None:
    pod, running = await ends.started({"n": 0})
    queued = [await ends.run({"n": n}) for n in range(3)]
    told = await ends.call("POST", "purge-queue")
    same(told, {"removed": 3, "status": "completed"}, "the reply")
    same((await ends.status(running))["status"], "IN_PROGRESS", "status of the running job")
    await pod.done(running, {"output": 1})
    reply = await ends.send("GET", f"status/{queued[0]}")
    need(reply.status == 404 or reply.json["status"] == "CANCELLED", f"a purged job: {short(reply.body)}")


@check("A.2")
async def a_failed_job_can_be_retried_under_its_id(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"error": "broke", "output": {"half": 1}})
    await ends.until(job, "FAILED")
    told = await ends.call("POST", f"retry/{job['id']}")
    same((told.get("id"), told.get("status")), (job["id"], "IN_QUEUE"), "id and status")
    again = await pod.take()
    same(again, {**job, **{key: again[key] for key in again if key not in ("id", "input")}}, "the job that comes again")
    await pod.done(again, {"output": "now"})
    view = await ends.until(job, "COMPLETED")
    same((view.get("output"), view.get("error")), ("now", None), "output and error")


@check("A.3", group=SLOW)
async def a_job_over_its_executionTimeout_fails_and_is_stopped(ends: Ends) -> None:  # noqa: N802
    pod, job = await ends.started({"n": 1}, policy={"executionTimeout": 5000})
    beating = asyncio.create_task(pod.beat(job))
    try:
        same(await pod.stops(), [job["id"]], "jobsToStop")
        view = await ends.until(job, "FAILED")
    finally:
        beating.cancel()
    same(view.get("error"), "executionTimeout exceeded", "error")


# ------------------------------------------------------------ streams


@check("A.6")
async def stream_gives_each_chunk_once_and_the_end_with_the_last(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    values: list[Any] = ["a", {"b": None}, 3]
    for value in values:
        await pod.chunk(job, value)
    first = await ends.call("GET", f"stream/{job['id']}")
    same([one["output"] for one in first["stream"]], values, "chunks")
    same(first["status"], "IN_PROGRESS", "status")
    await pod.chunk(job, "last")
    await pod.ended(job)
    tail: list[Any] = []
    status = "IN_PROGRESS"
    while status == "IN_PROGRESS":
        told = await ends.call("POST", f"stream/{job['id']}")
        tail, status = tail + [one["output"] for one in told["stream"]], told["status"]
    same((tail, status), (["last"], "COMPLETED"), "the last chunk and the status")


@check("G.7")
async def stream_always_has_its_array(ends: Ends) -> None:
    job_id = await completed(ends, "x")
    same((await ends.call("GET", f"stream/{job_id}")).get("stream"), [], "stream of a job without chunks")


@check("A.6")
async def stream_waits_for_a_chunk(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    asked = asyncio.create_task(ends.call("GET", f"stream/{job['id']}"))
    await asyncio.sleep(0.5)
    need(not asked.done(), "answered at once although there was nothing")
    await pod.chunk(job, "late")
    same([one["output"] for one in (await asked)["stream"]], ["late"], "chunks")
    await pod.ended(job)


@check("B.7")
async def an_aggregated_stream_is_also_the_output(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.chunk(job, "a")
    await pod.ended(job, ["a"])
    same((await ends.until(job, "COMPLETED")).get("output"), ["a"], "output")


# ------------------------------------------------------------ OpenAI routes


@check("D.6")
async def an_openai_request_is_a_job_and_its_one_chunk_the_body(ends: Ends) -> None:
    body = {"model": "m", "messages": []}
    asked = asyncio.create_task(ends.send("POST", "openai/v1/chat/completions", json=body))
    pod = ends.pod()
    job = await pod.take()
    same(job["input"], {"openai_route": "/v1/chat/completions", "openai_input": body}, "input")
    await pod.chunk(job, {"id": "x"})
    await pod.ended(job, [{"id": "x"}])
    reply = await asked
    same((reply.status, reply.json), (200, {"id": "x"}), "the reply")


@check("D.6")
async def an_openai_request_without_a_body_is_its_route(ends: Ends) -> None:
    asked = asyncio.create_task(ends.send("GET", "openai/v1/models"))
    pod = ends.pod()
    job = await pod.take()
    same(job["input"], {"openai_route": "/v1/models"}, "input")
    await pod.done(job, {"output": [{"object": "list"}]}, query="&isStream=true")
    same((await asked).json, {"object": "list"}, "the body")


@check("D.6")
async def an_openai_stream_passes_through_byte_for_byte(ends: Ends) -> None:
    pieces = ["data: {", '"é": 1}\n', "\ndata: [DONE]\n\n"]
    asked = asyncio.create_task(ends.send("POST", "openai/v1/chat/completions", json={"stream": True}))
    pod = ends.pod()
    job = await pod.take()
    for piece in pieces:
        await pod.chunk(job, piece)
    await pod.ended(job, pieces)
    reply = await asked
    same((reply.content_type, reply.body.decode()), ("text/event-stream", "".join(pieces)), "the reply")


@check("D.6")
async def a_failed_openai_request_has_an_openai_error(ends: Ends) -> None:
    asked = asyncio.create_task(ends.send("POST", "openai/v1/chat/completions", json={}))
    pod = ends.pod()
    await pod.done(await pod.take(), {"error": "{'message': 'no', 'type': 'BadRequestError', 'code': 400}"})
    reply = await asked
    need(reply.status >= 400, f"status code: expected an error, got {reply.status}")
    same(reply.json.get("error", {}).get("message"), "no", "error.message")
