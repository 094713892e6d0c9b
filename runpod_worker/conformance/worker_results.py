"""The promises of a worker about its reports: results, errors, progress and chunks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .check import require, require_equal, truncate
from .scripted_service import CUT, ScriptedService
from .worker_runner import WorkerUnderTest
from .worker_suite import (
    AGGREGATE,
    ASYNC_GENERATOR,
    COROUTINE,
    FUNCTION,
    GENERATOR,
    LONG_OUTAGE,
    OUTAGE,
    SOON_S,
    check,
    error_of,
    output_of,
    run_job,
)

ODD_VALUES: list[Any] = [
    None, "", [], True, 0, 1.5, "ünï 😀 \u2028 \\ \"", {"a": {"b": [1, {"c": None}]}}, [{"output": 1}], {"output": "x"},
]  # fmt: skip


@check("B.6", group=FUNCTION)
async def a_function_posts_what_it_returns(worker: WorkerUnderTest) -> None:
    for value in ODD_VALUES:
        report = await run_job(worker.service, {"return": value})
        require_equal(output_of(report), value, "output")
        require_equal(report.query.get("isStream"), "false", "isStream")


@check("B.6", group=COROUTINE)
async def a_coroutine_posts_what_it_returns(worker: WorkerUnderTest) -> None:
    for value in ODD_VALUES:
        require_equal(output_of(await run_job(worker.service, {"return": value})), value, "output")


@check("B.6", group=FUNCTION)
async def an_empty_dict_means_no_output(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"return": {}})
    require_equal(report.json.get("output"), None, "output")


@check("B.6", group=FUNCTION)
async def a_large_result_arrives_whole(worker: WorkerUnderTest) -> None:
    text = "x" * (5 * 2**20)
    require_equal(len(output_of(await run_job(worker.service, {"return": text}))), len(text), "length of the output")


@check("C.2", group=FUNCTION)
async def a_returned_error_fails_the_job_with_its_text(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"return": {"error": "too dark", "rest": 1}})
    require_equal(error_of(report), "too dark", "error")
    require_equal(report.json.get("output"), {"rest": 1}, "output beside the error")


@check("A.5", group=FUNCTION)
async def an_error_is_a_string_whatever_the_handler_returned(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"return": {"error": {"code": 7}}})
    require_equal(json.loads(error_of(report)), {"code": 7}, "the error, as JSON")


@check("B.6", group=FUNCTION)
async def an_exception_is_reported_with_its_type_message_and_traceback(worker: WorkerUnderTest) -> None:
    error = json.loads(error_of(await run_job(worker.service, {"raise": "bøøm"})))
    require_equal(error.get("error_message"), "bøøm", "error_message")
    require("ValueError" in str(error.get("error_type")), f"error_type: got {truncate(error.get('error_type'))}")
    require("raise ValueError" in str(error.get("error_traceback")), "error_traceback does not show the line")
    require_equal(error.get("worker_id"), worker.name, "worker_id")


@check("E.27", group=FUNCTION)
async def a_handler_that_calls_sys_exit_fails_its_job_only(worker: WorkerUnderTest) -> None:
    error_of(await worker.service.final_report(worker.service.submit({"leave": 3}), SOON_S))
    require_equal(output_of(await run_job(worker.service, {"return": "next"})), "next", "the next job")


@check("E.10", group=FUNCTION)
async def a_value_that_is_not_json_fails_the_job_at_once(worker: WorkerUnderTest) -> None:
    error_of(await worker.service.final_report(worker.service.submit({"odd": "object"}), SOON_S))


@check("E.10", group=FUNCTION)
async def nan_does_not_make_broken_json(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"odd": "nan"})
    require(isinstance(report.json, dict), "expected a JSON object")


@check("A.3", group=FUNCTION)
async def an_empty_input_reaches_the_handler(worker: WorkerUnderTest) -> None:
    require_equal(output_of(await run_job(worker.service, {})), {"echo": {}}, "output")


@check("E.11", group=FUNCTION)
async def a_job_without_input_fails_instead_of_vanishing(worker: WorkerUnderTest) -> None:
    job_id = worker.service.new_job_id()
    worker.service.enqueue({"id": job_id})
    error_of(await worker.service.final_report(job_id, SOON_S))


@check("B.6", group=OUTAGE)
async def a_result_is_sent_again_when_the_service_fails(worker: WorkerUnderTest) -> None:
    await _require_second_try(worker.service, 500)


@check("E.8", group=OUTAGE)
async def a_result_is_sent_again_when_the_connection_breaks(worker: WorkerUnderTest) -> None:
    await _require_second_try(worker.service, CUT)


@check("E.8", group=LONG_OUTAGE)
async def a_result_survives_eight_seconds_without_a_service(worker: WorkerUnderTest) -> None:
    service = worker.service
    service.fail("job-done", status=502)
    job_id = service.submit({"return": "kept"})
    await service.until(lambda: service.received("job-done", job_id=job_id), "the first try")
    await asyncio.sleep(8.0)
    service.recover()
    require_equal(output_of(await service.final_report(job_id, 40.0)), "kept", "output")


async def _require_second_try(service: ScriptedService, first_answer: int | str) -> None:
    service.script("job-done", first_answer)
    require_equal(output_of(await service.final_report(service.submit({"return": "kept"}))), "kept", "output")


@check("B.6", group=FUNCTION)
async def refresh_worker_in_the_output_asks_for_a_new_worker(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"return": {"refresh_worker": True, "rest": 1}})
    worker.is_spent = True
    require_equal(report.json.get("stopPod"), True, "stopPod")
    require_equal(report.json.get("output"), {"rest": 1}, "output")


@check("E.23", group=COROUTINE)
async def progress_arrives_in_order_and_never_after_the_result(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"progress": [1, 2, 3, 4, 5], "return": "end"})
    await service.final_report(job_id)
    await asyncio.sleep(1.0)
    reports = service.received("job-done", job_id=job_id)
    progress = [report.json.get("output") for report in reports if not report.is_final]
    require(reports[-1].is_final, f"progress after the result: {truncate([report.json for report in reports])}")
    require(progress == sorted(progress), f"the progress arrived as {progress}")


@check("B.6", group=COROUTINE)
async def progress_is_seen_while_the_job_runs(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"progress": [{"percent": 50}], "sleep": 2, "return": 1})
    reports = await service.until(lambda: service.received("job-done", job_id=job_id), "progress")
    require_equal(reports[0].json, {"status": "IN_PROGRESS", "output": {"percent": 50}}, "the first report")
    await service.final_report(job_id)


async def _require_stream(worker: WorkerUnderTest) -> None:
    service = worker.service
    values = ["a", {"b": 1}, None, "ü"]
    job_id = service.submit({"yield": values})
    end = await service.final_report(job_id)
    require_equal(_chunks(service, job_id), values, "chunks")
    require(
        all(chunk.at <= end.at for chunk in service.received("job-stream", job_id=job_id)),
        "a chunk arrived after the end",
    )
    require_equal(end.query.get("isStream"), "true", "isStream of the end")
    require_equal(output_of(end), [], "output of the end")


@check("B.7", group=GENERATOR)
async def a_generator_streams_in_order_and_then_ends(worker: WorkerUnderTest) -> None:
    await _require_stream(worker)


@check("B.7", group=ASYNC_GENERATOR)
async def an_async_generator_streams_in_order_and_then_ends(worker: WorkerUnderTest) -> None:
    await _require_stream(worker)


@check("B.7", group=GENERATOR)
async def a_chunk_is_sent_when_it_is_yielded(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"yield": ["first", "second"], "sleep": 2.0})
    await service.until(lambda: service.received("job-stream", job_id=job_id), "the first chunk")
    require(not service.received("job-done", job_id=job_id), "the end arrived before the first chunk")
    require_equal(_chunks(service, job_id), ["first"], "the chunks while the generator sleeps")
    await service.final_report(job_id)


@check("B.6", group=GENERATOR)
async def a_generator_that_raises_fails_after_its_chunks(worker: WorkerUnderTest) -> None:
    service = worker.service
    job_id = service.submit({"yield": [1, 2], "raise": "bøøm"})
    end = await service.final_report(job_id)
    require("bøøm" in error_of(end) or "b\\u00f8\\u00f8m" in error_of(end), f"error: got {truncate(error_of(end))}")
    require_equal(_chunks(service, job_id), [1, 2], "the chunks before it")


@check("E.21", group=GENERATOR)
async def a_yielded_error_dict_is_reported_as_json(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"yield": [1, {"error": {"message": "m"}}, 2]})
    require_equal(json.loads(_require_json(error_of(report))), {"message": "m"}, "the error, as JSON")


@check("C.1", group=AGGREGATE)
async def the_stream_is_the_output_when_it_is_aggregated(worker: WorkerUnderTest) -> None:
    report = await run_job(worker.service, {"yield": ["a", "b"]})
    require_equal(output_of(report), ["a", "b"], "output")


def _require_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        require(False, f"error: expected JSON, got {truncate(text)}")
    return text


def _chunks(service: ScriptedService, job_id: str) -> list[Any]:
    return [chunk.json.get("output") for chunk in service.received("job-stream", job_id=job_id)]
