"""What a job service promises its workers: the reference SDK, of any version and with all its faults."""

from __future__ import annotations

import asyncio
from typing import Any

from .check import need, same, short
from .service_suite import LEASE, check, integers
from .service_under_test import Ends

# ------------------------------------------------------------ handing out


@check("G.9")
async def the_input_is_handed_out_as_it_came(ends: Ends) -> None:
    inputs: list[Any] = [{}, {"é": "😀\u2028", "n": 2**60, "f": 0.1, "deep": [[{"x": None}]]}, {"input": {"input": 1}}]
    for one in inputs:
        pod, job = await ends.started(one)
        same(job.get("input"), one, "input")
        need("self" not in job, "a key named self")
        await pod.done(job, {"output": 1})


@check("A.3")
async def s3Config_is_handed_out_with_the_job(ends: Ends) -> None:  # noqa: N802
    bucket = {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "https://d.example"}
    pod, job = await ends.started({"n": 1}, s3Config=bucket)
    same(job.get("s3Config"), bucket, "s3Config")
    await pod.done(job, {"output": 1})


@check("G.2")
async def a_take_is_held_until_there_is_a_job(ends: Ends) -> None:
    pod = ends.pod()
    asked = asyncio.create_task(pod.take())
    await asyncio.sleep(1.0)
    need(not asked.done(), "the take was answered although there was no job")
    job_id = await ends.run({"n": 1})
    same((await asked)["id"], job_id, "the job")
    await pod.done(job_id, {"output": 1})


@check("B.4")
async def jobs_are_handed_out_once_and_in_order(ends: Ends) -> None:
    ids = [await ends.run({"n": n}) for n in range(4)]
    pods = [ends.pod(), ends.pod()]
    taken = [await pods[n % 2].take() for n in range(4)]
    same([job["id"] for job in taken], ids, "the jobs")
    for n, job in enumerate(taken):
        await pods[n % 2].done(job, {"output": n})
    same([(await ends.until(one, "COMPLETED"))["output"] for one in ids], [0, 1, 2, 3], "outputs")


@check("B.4")
async def a_batch_has_at_most_the_jobs_that_were_asked_for(ends: Ends) -> None:
    ids = [await ends.run({"n": n}) for n in range(3)]
    pod = ends.pod()
    first = await pod.take_batch(2)
    need(1 <= len(first) <= 2, f"{len(first)} jobs, asked for 2")
    jobs = first
    while len(jobs) < 3:
        jobs = jobs + await pod.take_batch(3)
    same([job["id"] for job in jobs], ids, "the jobs")
    for job in jobs:
        await pod.done(job, {"output": 1})


@check("B.4")
async def a_take_whose_worker_is_gone_gets_no_job(ends: Ends) -> None:
    gone, pod = ends.pod(), ends.pod()
    asked = asyncio.create_task(gone.take())
    await asyncio.sleep(0.5)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(0.5)
    job_id = await ends.run({"n": 1})
    same((await pod.take())["id"], job_id, "the job, taken by another worker")
    await pod.done(job_id, {"output": 1})


@check("B.2")
async def parameters_without_a_question_mark_are_understood(ends: Ends) -> None:
    job_id, pod = await ends.run({"n": 1}), ends.pod()
    reply = await ends.send("GET", f"job-take/{pod.name}&job_in_progress=0")
    same(reply.status, 200, "status code of job-take")
    await ends.send("POST", f"job-done/{pod.name}/{job_id}&isStream=false", data=b'{"output": 1}')
    await ends.until(job_id, "COMPLETED")


# ------------------------------------------------------------ results


@check("G.3")
async def a_result_is_read_as_json_whatever_its_content_type(ends: Ends) -> None:
    outputs: list[Any] = [None, "", [], True, 0, "ünï 😀"]
    for output in outputs:
        pod, job = await ends.started({"n": 1})
        await pod.done(job, {"output": output})
        view = await ends.until(job, "COMPLETED")
        same(view.get("output"), output, "output")


@check("G.3")
async def nan_in_a_result_does_no_harm(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, b'{"output": {"a": NaN, "b": -Infinity, "c": 1}}')
    view = await ends.until(job, "COMPLETED", "FAILED")
    if view["status"] == "COMPLETED":
        same(view["output"]["c"], 1, "the rest of the output")


@check("G.3")
async def a_result_without_isStream_or_without_output_is_final(ends: Ends) -> None:  # noqa: N802
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": 1}, query="")
    await ends.until(job, "COMPLETED")
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {})
    view = await ends.until(job, "COMPLETED")
    need("output" not in view or view["output"] is None, f"output: expected none, got {short(view.get('output'))}")


@check("A.5")
async def an_error_fails_the_job_in_the_workers_words(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"error": '{"error_type": "x"}', "output": {"rest": 1}})
    view = await ends.until(job, "FAILED")
    same((view.get("error"), view.get("output")), ('{"error_type": "x"}', {"rest": 1}), "error and output")


@check("G.10")
async def an_error_is_a_string_for_callers_and_always_a_failure(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"error": {"a": 1}})
    view = await ends.until(job, "FAILED")
    need(isinstance(view.get("error"), str), f"error: expected a string, got {short(view.get('error'))}")


@check("G.5")
async def a_result_may_be_sent_twice(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": "first"})
    await pod.done(job, {"output": "first"})
    same((await ends.until(job, "COMPLETED"))["output"], "first", "output")


@check("G.4")
async def progress_is_seen_while_the_job_runs(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"status": "IN_PROGRESS", "output": {"percent": 50}})
    view = await ends.until(job, "IN_PROGRESS")
    same(view.get("output"), {"percent": 50}, "output")
    await pod.done(job, {"output": 1})
    same((await ends.until(job, "COMPLETED"))["output"], 1, "output at the end")


@check("G.4")
async def late_progress_does_not_open_a_job_again(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": "end"})
    await pod.done(job, {"status": "IN_PROGRESS", "output": "late"})
    view = await ends.status(job)
    same((view["status"], view["output"]), ("COMPLETED", "end"), "status and output")


@check("G.4")
async def another_workers_result_does_not_count(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    other = ends.pod()
    await other.done(job, {"output": "foreign"})
    await other.done(job, {"status": "IN_PROGRESS", "output": "foreign"})
    same((await ends.status(job))["status"], "IN_PROGRESS", "status")
    await pod.done(job, {"output": "mine"})
    same((await ends.until(job, "COMPLETED"))["output"], "mine", "output")


@check("B.5")
async def a_cancelled_job_is_stopped_at_its_worker(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    listening = asyncio.create_task(pod.stops())
    await asyncio.sleep(0.2)
    await ends.call("POST", f"cancel/{job['id']}")
    same(await listening, [job["id"]], "jobsToStop")
    same((await ends.until(job, "CANCELLED"))["status"], "CANCELLED", "status")


@check("B.5")
async def a_result_after_a_cancel_is_dropped(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await ends.call("POST", f"cancel/{job['id']}")
    await pod.done(job, {"output": "too late"})
    view = await ends.until(job, "CANCELLED")
    need("output" not in view, f"output: expected none, got {short(view.get('output'))}")


@check("B.6")
async def a_worker_that_asks_to_be_replaced_gets_no_more_jobs(ends: Ends) -> None:
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": 1, "stopPod": True})
    asked = asyncio.create_task(pod.take())
    await asyncio.sleep(0.3)
    job_id, other = await ends.run({"n": 2}), ends.pod()
    same((await other.take())["id"], job_id, "the job that another worker gets")
    asked.cancel()
    await other.done(job_id, {"output": 1})


# ------------------------------------------------------------ leases


@check("B.9", group=LEASE)
async def a_job_whose_worker_is_lost_is_handed_out_once_more(ends: Ends) -> None:
    lease_s = _lease(ends)
    lost, job = await ends.started({"n": 1})
    other = ends.pod()
    again = await other.take(lease_s * 3 + 10)
    same(again["id"], job["id"], "the job that another worker gets")
    await lost.done(job, {"output": "too late"})
    same((await ends.status(job))["status"], "IN_PROGRESS", "status after the lost worker's result")
    await other.done(again, {"output": "second"})
    view = await ends.until(job, "COMPLETED")
    same((view["output"], view.get("retries")), ("second", 1), "output and retries")


@check("B.9", group=LEASE)
async def a_job_that_lost_two_workers_fails(ends: Ends) -> None:
    lease_s = _lease(ends)
    _, job = await ends.started({"n": 1})
    await ends.pod().take(lease_s * 3 + 10)
    view = await ends.until(job, "FAILED", patience_s=lease_s * 3 + 10)
    same(view.get("error"), "job timed out after 1 retries", "error")


@check("G.6", group=LEASE)
async def pings_keep_a_job_with_its_worker(ends: Ends) -> None:
    lease_s = _lease(ends)
    pod, job = await ends.started({"n": 1})
    for _ in range(8):
        await asyncio.sleep(lease_s / 4)
        await pod.ping(job)
    view = await ends.status(job)
    same((view["status"], view.get("retries", 0)), ("IN_PROGRESS", 0), "status and retries after two leases")
    await pod.done(job, {"output": 1})
    integers(await ends.until(job, "COMPLETED"), "executionTime")


def _lease(ends: Ends) -> float:
    need(ends.lease_s is not None, "the lease is not known")
    return ends.lease_s or 0.0
