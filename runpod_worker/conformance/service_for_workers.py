"""The promises of a job service to its workers: the reference SDK in any version, faults included."""

from __future__ import annotations

import asyncio
from typing import Any

from .check import require, require_equal, truncate
from .service_suite import LEASE, check, require_integers
from .service_under_test import ServiceUnderTest

# ------------------------------------------------------------ takes


@check("G.9")
async def a_worker_gets_the_input_as_submitted(service: ServiceUnderTest) -> None:
    inputs: list[Any] = [{}, {"é": "😀\u2028", "n": 2**60, "f": 0.1, "deep": [[{"x": None}]]}, {"input": {"input": 1}}]
    for job_input in inputs:
        worker, job = await service.start_job(job_input)
        require_equal(job.get("input"), job_input, "input")
        require("self" not in job, "a key named self")
        await worker.finish(job, {"output": 1})


@check("A.3")
async def a_worker_gets_s3Config_with_the_job(service: ServiceUnderTest) -> None:  # noqa: N802
    bucket = {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": "https://d.example"}
    worker, job = await service.start_job({"n": 1}, s3Config=bucket)
    require_equal(job.get("s3Config"), bucket, "s3Config")
    await worker.finish(job, {"output": 1})


@check("G.2")
async def a_take_is_held_until_there_is_a_job(service: ServiceUnderTest) -> None:
    worker = service.new_worker()
    take = asyncio.create_task(worker.take())
    await asyncio.sleep(1.0)
    require(not take.done(), "the take was answered although there was no job")
    job_id = await service.submit({"n": 1})
    require_equal((await take)["id"], job_id, "the job")
    await worker.finish(job_id, {"output": 1})


@check("B.4")
async def jobs_are_taken_once_and_in_order(service: ServiceUnderTest) -> None:
    ids = [await service.submit({"n": n}) for n in range(4)]
    workers = [service.new_worker(), service.new_worker()]
    taken = [await workers[n % 2].take() for n in range(4)]
    require_equal([job["id"] for job in taken], ids, "the jobs")
    for n, job in enumerate(taken):
        await workers[n % 2].finish(job, {"output": n})
    require_equal(
        [(await service.until_status(job_id, "COMPLETED"))["output"] for job_id in ids], [0, 1, 2, 3], "outputs"
    )


@check("B.4")
async def a_batch_has_at_most_the_requested_jobs(service: ServiceUnderTest) -> None:
    ids = [await service.submit({"n": n}) for n in range(3)]
    worker = service.new_worker()
    first = await worker.take_batch(2)
    require(1 <= len(first) <= 2, f"{len(first)} jobs, requested 2")
    jobs = first
    while len(jobs) < 3:
        jobs = jobs + await worker.take_batch(3)
    require_equal([job["id"] for job in jobs], ids, "the jobs")
    for job in jobs:
        await worker.finish(job, {"output": 1})


@check("B.4")
async def a_take_whose_worker_is_gone_gets_no_job(service: ServiceUnderTest) -> None:
    gone, worker = service.new_worker(), service.new_worker()
    take = asyncio.create_task(gone.take())
    await asyncio.sleep(0.5)
    take.cancel()
    await asyncio.gather(take, return_exceptions=True)
    await asyncio.sleep(0.5)
    job_id = await service.submit({"n": 1})
    require_equal((await worker.take())["id"], job_id, "the job, taken by another worker")
    await worker.finish(job_id, {"output": 1})


@check("B.2")
async def parameters_without_a_question_mark_are_understood(service: ServiceUnderTest) -> None:
    job_id, worker = await service.submit({"n": 1}), service.new_worker()
    reply = await service.send("GET", f"job-take/{worker.name}&job_in_progress=0")
    require_equal(reply.status, 200, "status code of job-take")
    await service.send("POST", f"job-done/{worker.name}/{job_id}&isStream=false", data=b'{"output": 1}')
    await service.until_status(job_id, "COMPLETED")


# ------------------------------------------------------------ results


@check("G.3")
async def a_result_is_read_as_json_whatever_its_content_type(service: ServiceUnderTest) -> None:
    outputs: list[Any] = [None, "", [], True, 0, "ünï 😀"]
    for output in outputs:
        worker, job = await service.start_job({"n": 1})
        await worker.finish(job, {"output": output})
        view = await service.until_status(job, "COMPLETED")
        require_equal(view.get("output"), output, "output")


@check("G.3")
async def nan_in_a_result_is_accepted(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, b'{"output": {"a": NaN, "b": -Infinity, "c": 1}}')
    view = await service.until_status(job, "COMPLETED", "FAILED")
    if view["status"] == "COMPLETED":
        require_equal(view["output"]["c"], 1, "the remaining output")


@check("G.3")
async def a_result_without_isStream_or_without_output_is_final(service: ServiceUnderTest) -> None:  # noqa: N802
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": 1}, query="")
    await service.until_status(job, "COMPLETED")
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {})
    view = await service.until_status(job, "COMPLETED")
    require(
        "output" not in view or view["output"] is None, f"output: expected none, got {truncate(view.get('output'))}"
    )


@check("A.5")
async def an_error_fails_the_job_with_the_workers_text(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"error": '{"error_type": "x"}', "output": {"rest": 1}})
    view = await service.until_status(job, "FAILED")
    require_equal((view.get("error"), view.get("output")), ('{"error_type": "x"}', {"rest": 1}), "error and output")


@check("G.10")
async def an_error_is_a_string_for_callers_and_always_a_failure(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"error": {"a": 1}})
    view = await service.until_status(job, "FAILED")
    require(isinstance(view.get("error"), str), f"error: expected a string, got {truncate(view.get('error'))}")


@check("G.5")
async def a_result_may_be_sent_twice(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": "first"})
    await worker.finish(job, {"output": "first"})
    require_equal((await service.until_status(job, "COMPLETED"))["output"], "first", "output")


@check("G.4")
async def progress_is_seen_while_the_job_runs(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"status": "IN_PROGRESS", "output": {"percent": 50}})
    view = await service.until_status(job, "IN_PROGRESS")
    require_equal(view.get("output"), {"percent": 50}, "output")
    await worker.finish(job, {"output": 1})
    require_equal((await service.until_status(job, "COMPLETED"))["output"], 1, "output at the end")


@check("G.4")
async def late_progress_does_not_open_a_job_again(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": "end"})
    await worker.finish(job, {"status": "IN_PROGRESS", "output": "late"})
    view = await service.get_view(job)
    require_equal((view["status"], view["output"]), ("COMPLETED", "end"), "status and output")


@check("G.4")
async def another_workers_result_does_not_count(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    other = service.new_worker()
    await other.finish(job, {"output": "foreign"})
    await other.finish(job, {"status": "IN_PROGRESS", "output": "foreign"})
    require_equal((await service.get_view(job))["status"], "IN_PROGRESS", "status")
    await worker.finish(job, {"output": "mine"})
    require_equal((await service.until_status(job, "COMPLETED"))["output"], "mine", "output")


@check("B.5")
async def a_cancelled_job_is_stopped_at_its_worker(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    listening = asyncio.create_task(worker.receive_stops())
    await asyncio.sleep(0.2)
    await service.call("POST", f"cancel/{job['id']}")
    require_equal(await listening, [job["id"]], "jobsToStop")
    require_equal((await service.until_status(job, "CANCELLED"))["status"], "CANCELLED", "status")


@check("B.5")
async def a_result_after_a_cancel_is_dropped(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await service.call("POST", f"cancel/{job['id']}")
    await worker.finish(job, {"output": "too late"})
    view = await service.until_status(job, "CANCELLED")
    require("output" not in view, f"output: expected none, got {truncate(view.get('output'))}")


@check("B.6")
async def a_worker_that_asks_to_be_replaced_gets_no_more_jobs(service: ServiceUnderTest) -> None:
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": 1, "stopPod": True})
    take = asyncio.create_task(worker.take())
    await asyncio.sleep(0.3)
    job_id, other = await service.submit({"n": 2}), service.new_worker()
    require_equal((await other.take())["id"], job_id, "the job that another worker gets")
    take.cancel()
    await other.finish(job_id, {"output": 1})


# ------------------------------------------------------------ leases


@check("B.9", group=LEASE)
async def a_job_whose_worker_is_lost_is_taken_once_more(service: ServiceUnderTest) -> None:
    lease_s = _lease(service)
    lost, job = await service.start_job({"n": 1})
    other = service.new_worker()
    again = await other.take(lease_s * 3 + 10)
    require_equal(again["id"], job["id"], "the job that another worker gets")
    await lost.finish(job, {"output": "too late"})
    require_equal((await service.get_view(job))["status"], "IN_PROGRESS", "status after the lost worker's result")
    await other.finish(again, {"output": "second"})
    view = await service.until_status(job, "COMPLETED")
    require_equal((view["output"], view.get("retries")), ("second", 1), "output and retries")


@check("B.9", group=LEASE)
async def a_job_that_lost_two_workers_fails(service: ServiceUnderTest) -> None:
    lease_s = _lease(service)
    _, job = await service.start_job({"n": 1})
    await service.new_worker().take(lease_s * 3 + 10)
    view = await service.until_status(job, "FAILED", timeout_s=lease_s * 3 + 10)
    require_equal(view.get("error"), "job timed out after 1 retries", "error")


@check("G.6", group=LEASE)
async def pings_keep_a_job_with_its_worker(service: ServiceUnderTest) -> None:
    lease_s = _lease(service)
    worker, job = await service.start_job({"n": 1})
    for _ in range(8):
        await asyncio.sleep(lease_s / 4)
        await worker.ping(job)
    view = await service.get_view(job)
    require_equal((view["status"], view.get("retries", 0)), ("IN_PROGRESS", 0), "status and retries after two leases")
    await worker.finish(job, {"output": 1})
    require_integers(await service.until_status(job, "COMPLETED"), "executionTime")


def _lease(service: ServiceUnderTest) -> float:
    require(service.lease_s is not None, "the lease is not known")
    return service.lease_s or 0.0
