"""The promises of a worker about its life: it takes jobs, pings, stops on request and exits."""

from __future__ import annotations

import asyncio

from .check import require, require_equal, truncate
from .scripted_service import TAKES, WorkerRequest
from .worker_runner import WorkerUnderTest
from .worker_suite import COROUTINE, FUNCTION, MANY, OUTAGE, PINGS, SOON_S, STOP, check, output_of, run_job


@check("B.4", group=FUNCTION)
async def reports_with_each_take_whether_it_has_a_job(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"sleep": 0})
    await service.final_report(job_id)
    takes = service.received(*TAKES)
    require(all(take.query.get("job_in_progress") in ("0", "1") for take in takes), "job_in_progress=0|1 is missing")
    require_equal(takes[0].query["job_in_progress"], "0", "job_in_progress of the first take")


@check("B.2", group=FUNCTION)
async def keeps_the_query_of_the_templates_and_names_itself(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"return": 1})
    require_equal(report.query.get("gpu"), "NVIDIA A40", "gpu")
    require_equal(report.worker, worker.name, "the worker in the path")


@check("B.3", group=FUNCTION)
async def sends_the_key_as_it_is(worker: WorkerUnderTest) -> None:
    await run_job(worker.service, {"return": 1})
    keys = {request.headers.get("authorization") for request in worker.service.requests}
    require(keys <= {"conformance-key", "Bearer conformance-key"}, f"Authorization: got {truncate(keys)}")


@check("B.4", group=OUTAGE)
async def waits_before_the_next_take_when_the_service_fails(worker: WorkerUnderTest) -> None:
    service = worker.service
    service.fail(*TAKES, status=500)
    await run_job(service, {"return": 1})  # the open take still gets the job; the next ones fail
    await asyncio.sleep(2.0)
    refused = sum(take.status == 500 for take in service.received(*TAKES))
    service.recover()
    require(refused <= 40, f"{refused} job-takes within 2 s, each answered 500")
    await run_job(service, {"return": 1})


@check("E.2", group=FUNCTION)
async def takes_the_next_job_as_soon_as_it_can(worker: WorkerUnderTest) -> None:
    service = worker.service
    jobs = [service.submit({"return": n}) for n in range(12)]
    first = await service.final_report(jobs[0])
    last = await service.final_report(jobs[-1], 40.0)
    took = last.at - first.at
    require(took < 6.0, f"12 jobs that return at once took {took:.1f} s")


@check("B.4", group=MANY)
async def runs_several_jobs_at_once(worker: WorkerUnderTest) -> None:
    service = worker.service
    await run_job(service, {"return": 1})
    jobs = [service.submit({"sleep": 3.0, "return": n}) for n in range(3)]
    results = [await service.final_report(job) for job in jobs]
    first, last = min(report.at for report in results), max(report.at for report in results)
    require(last - first < 2.5, f"three jobs of 3 s ended {last - first:.1f} s apart")


@check("E.12", group=MANY)
async def a_broken_job_in_a_batch_does_not_lose_the_others(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.new_job_id()
    service.enqueue({"no": "id"}, "no object", {"id": job_id, "input": {"return": "good"}})
    require_equal(
        output_of(await service.final_report(job_id, SOON_S)), "good", "the output of the job behind two broken ones"
    )


@check("B.8", group=PINGS)
async def pings_list_the_job_even_while_the_handler_blocks(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"sleep": 3, "return": 1})
    await service.final_report(job_id)
    require(
        len(service.pings_listing(job_id)) >= 2,
        f"{len(service.pings_listing(job_id))} pings listed a job of 3 s, at one each second",
    )


@check("B.8", group=PINGS)
async def pings_omit_the_job_when_it_has_ended(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"sleep": 2, "return": 1})
    end = await service.final_report(job_id)

    def late() -> list[WorkerRequest]:
        return [ping for ping in service.received("ping") if ping.at > end.at + 1.5]

    await service.until(lambda: len(late()) >= 2, "two pings after the job's end")
    listing = [ping for ping in service.pings_listing(job_id) if ping in late()]
    require(not listing, "a ping still lists a job that ended more than a second before")


async def _require_stop(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"sleep": 15, "return": "too late"})
    await service.until_running(job_id)
    service.request_stop(job_id)
    following = service.submit({"return": "next"})
    require_equal(
        output_of(await service.final_report(following, SOON_S)),
        "next",
        "the next job, while the stopped one had 15 s to go",
    )
    reports = service.received("job-done", job_id=job_id)
    require(not any(report.is_final and "output" in report.json for report in reports), "the stopped job's output")


@check("B.5", group=COROUTINE)
async def a_stop_ends_a_coroutine_and_frees_its_slot(worker: WorkerUnderTest) -> None:
    await _require_stop(worker)


@check("E.1", group=STOP)
async def a_stop_ends_a_function_and_frees_its_slot(worker: WorkerUnderTest) -> None:
    await _require_stop(worker)


@check("B.5", group=MANY)
async def a_stop_leaves_the_other_jobs_alone(worker: WorkerUnderTest) -> None:
    service = worker.service
    stopped, other = service.submit({"sleep": 15}), service.submit({"sleep": 4, "return": "other"})
    await service.until_running(stopped)
    await service.until_running(other)
    service.request_stop(stopped)
    require_equal(output_of(await service.final_report(other)), "other", "the other job")


@check("E.6", group=STOP)
async def an_idle_worker_exits_at_once_on_sigterm(worker: WorkerUnderTest) -> None:
    await worker.service.until_take()
    worker.terminate()
    await worker.exit_status(SOON_S)


@check("B.10", group=COROUTINE)
async def a_busy_worker_finishes_its_job_on_sigterm(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"sleep": 2, "return": "finished"})
    await service.until_running(job_id)
    worker.terminate()
    require_equal(output_of(await service.final_report(job_id)), "finished", "output")
    require(await worker.exit_status(SOON_S) == 0, "the exit status is not 0")


@check("E.15", group=STOP)
async def a_dead_handler_is_not_reported_alive(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"exit": 9})
    await service.until(
        lambda: worker.has_exited or service.received("job-done", job_id=job_id),
        "the worker's exit, or an error of the job",
        SOON_S,
    )
    await asyncio.sleep(1.5)
    before = len(service.pings_listing(job_id))
    await asyncio.sleep(2.5)  # no event to wait for: a worker that has exited does not ping
    require(len(service.pings_listing(job_id)) == before, "pings still list the job of a process that is dead")
