"""How a worker lives: it asks for jobs, beats, stops when told, and leaves."""

from __future__ import annotations

from .check import need, same, short
from .worker_runner import WorkerSide
from .worker_suite import COROUTINE, FUNCTION, MANY, OUTAGE, SOON_S, STOP, check, output_of, quickly_finished


@check("B.4", group=FUNCTION)
async def asks_for_jobs_and_says_whether_it_has_some(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"sleep": 0})
    await stage.result(job_id)
    takes = [one for one in stage.heard if one.what in ("take", "batch")]
    need(all(one.query.get("job_in_progress") in ("0", "1") for one in takes), "job_in_progress=0|1 is missing")
    same(takes[0].query["job_in_progress"], "0", "job_in_progress of the first take")


@check("B.2", group=FUNCTION)
async def keeps_the_query_of_the_templates_and_names_itself(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"return": 1})
    same(heard.query.get("gpu"), "NVIDIA A40", "gpu")
    same(heard.worker, side.name, "the worker in the path")


@check("B.3", group=FUNCTION)
async def sends_the_key_as_it_is(side: WorkerSide) -> None:
    await quickly_finished(side.stage, {"return": 1})
    keys = {one.headers.get("Authorization") for one in side.stage.heard}
    need(keys <= {"conformance-key", "Bearer conformance-key"}, f"Authorization: got {short(keys)}")


@check("B.4", group=OUTAGE)
async def waits_before_it_asks_again_when_the_service_fails(side: WorkerSide) -> None:
    stage = side.stage
    stage.fault = lambda what: 500 if what in ("take", "batch") else None
    await quickly_finished(stage, {"return": 1})  # the open take still delivers; the next ones fail
    await stage.quiet(2.0)
    asked = sum(one.what in ("take", "batch") and one.status == 500 for one in stage.heard)
    stage.fault = None
    need(asked <= 40, f"{asked} job-takes within 2 s, each answered 500")
    await quickly_finished(stage, {"return": 1})


@check("E.2", group=FUNCTION)
async def takes_the_next_job_as_soon_as_it_can(side: WorkerSide) -> None:
    stage = side.stage
    jobs = [stage.add({"return": n}) for n in range(12)]
    first = await stage.result(jobs[0])
    last = await stage.result(jobs[-1], 40.0)
    took = last.at - first.at
    need(took < 6.0, f"12 jobs that return at once took {took:.1f} s")


@check("B.4", group=MANY)
async def runs_several_jobs_at_once(side: WorkerSide) -> None:
    stage = side.stage
    await quickly_finished(stage, {"return": 1})
    jobs = [stage.add({"sleep": 3.0, "return": n}) for n in range(3)]
    results = [await stage.result(job) for job in jobs]
    first, last = min(one.at for one in results), max(one.at for one in results)
    need(last - first < 2.5, f"three jobs of 3 s ended {last - first:.1f} s apart")


@check("E.12", group=MANY)
async def a_broken_job_in_a_batch_does_not_lose_the_others(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.new_id()
    stage.add_raw({"no": "id"}, "no object", {"id": job_id, "input": {"return": "good"}})
    same(output_of(await stage.result(job_id, SOON_S)), "good", "the output of the job behind two broken ones")


@check("B.8", group=STOP)
async def pings_list_the_job_even_while_the_handler_blocks(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"sleep": 4, "return": 1})
    await stage.result(job_id)
    need(len(stage.pinged(job_id)) >= 2, f"{len(stage.pinged(job_id))} pings listed a job of 4 s, at one each second")


@check("B.8", group=STOP)
async def pings_forget_the_job_when_it_has_ended(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"sleep": 2, "return": 1})
    end = await stage.result(job_id)
    await stage.quiet(3.5)
    late = [one for one in stage.pinged(job_id) if one.at > end.at + 1.5]
    need(not late, "a ping still lists a job that ended more than a second before")


async def _stops(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"sleep": 15, "return": "too late"})
    await stage.running(job_id)
    stage.stop(job_id)
    following = stage.add({"return": "next"})
    same(output_of(await stage.result(following, SOON_S)), "next", "the next job, while the stopped one had 15 s to go")
    need(not [one for one in stage.of(job_id) if one.final and "output" in one.json], "the stopped job's output")


@check("B.5", group=COROUTINE)
async def a_stop_ends_a_coroutine_and_frees_its_slot(side: WorkerSide) -> None:
    await _stops(side)


@check("E.1", group=STOP)
async def a_stop_ends_a_function_and_frees_its_slot(side: WorkerSide) -> None:
    await _stops(side)


@check("B.5", group=MANY)
async def a_stop_leaves_the_other_jobs_alone(side: WorkerSide) -> None:
    stage = side.stage
    one, other = stage.add({"sleep": 15}), stage.add({"sleep": 4, "return": "other"})
    await stage.running(one)
    await stage.running(other)
    stage.stop(one)
    same(output_of(await stage.result(other)), "other", "the other job")


@check("E.6", group=STOP)
async def an_idle_worker_leaves_at_once_on_sigterm(side: WorkerSide) -> None:
    await side.stage.asked()
    side.terminate()
    await side.left(SOON_S)


@check("B.10", group=COROUTINE)
async def a_busy_worker_finishes_its_job_on_sigterm(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"sleep": 3, "return": "finished"})
    await stage.running(job_id)
    side.terminate()
    same(output_of(await stage.result(job_id)), "finished", "output")
    need(await side.left(SOON_S) == 0, "the exit status is not 0")


@check("E.15", group=STOP)
async def a_dead_handler_is_not_reported_alive(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"exit": 9})
    await stage.until(lambda: side.gone or stage.of(job_id), "the worker's end, or an error of the job", SOON_S)
    await stage.quiet(1.5)
    before = len(stage.pinged(job_id))
    await stage.quiet(3.5)
    need(len(stage.pinged(job_id)) == before, "pings still list the job of a process that is dead")
