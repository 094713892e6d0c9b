"""What a worker says of its jobs: results, errors, progress, chunks."""

from __future__ import annotations

import json
from typing import Any

from .check import need, same, short
from .scripted_service import Stage
from .worker_runner import WorkerSide
from .worker_suite import (
    AGGREGATE,
    ASYNC_GENERATOR,
    COROUTINE,
    FUNCTION,
    GENERATOR,
    OUTAGE,
    SOON_S,
    check,
    error_of,
    output_of,
    quickly_finished,
)

ODD_VALUES: list[Any] = [
    None, "", [], True, 0, 1.5, "ünï 😀 \u2028 \\ \"", {"a": {"b": [1, {"c": None}]}}, [{"output": 1}], {"output": "x"},
]  # fmt: skip


@check("B.6", group=FUNCTION)
async def a_function_posts_what_it_returns(side: WorkerSide) -> None:
    for value in ODD_VALUES:
        heard = await quickly_finished(side.stage, {"return": value})
        same(output_of(heard), value, "output")
        same(heard.query.get("isStream"), "false", "isStream")


@check("B.6", group=COROUTINE)
async def a_coroutine_posts_what_it_returns(side: WorkerSide) -> None:
    for value in ODD_VALUES:
        same(output_of(await quickly_finished(side.stage, {"return": value})), value, "output")


@check("B.6", group=FUNCTION)
async def an_empty_dict_means_no_output(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"return": {}})
    same(heard.json.get("output"), None, "output")


@check("B.6", group=FUNCTION)
async def a_large_result_arrives_whole(side: WorkerSide) -> None:
    text = "x" * (5 * 2**20)
    same(len(output_of(await quickly_finished(side.stage, {"return": text}))), len(text), "length of the output")


@check("C.2", group=FUNCTION)
async def a_returned_error_fails_the_job_with_its_words(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"return": {"error": "too dark", "rest": 1}})
    same(error_of(heard), "too dark", "error")
    same(heard.json.get("output"), {"rest": 1}, "output beside the error")


@check("A.5", group=FUNCTION)
async def an_error_is_a_string_whatever_the_handler_gave(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"return": {"error": {"code": 7}}})
    same(json.loads(error_of(heard)), {"code": 7}, "the error, as JSON")


@check("B.6", group=FUNCTION)
async def an_exception_is_told_with_its_type_message_and_traceback(side: WorkerSide) -> None:
    told = json.loads(error_of(await quickly_finished(side.stage, {"raise": "bøøm"})))
    same(told.get("error_message"), "bøøm", "error_message")
    need("ValueError" in str(told.get("error_type")), f"error_type: got {short(told.get('error_type'))}")
    need("raise ValueError" in str(told.get("error_traceback")), "error_traceback does not show the line")
    same(told.get("worker_id"), side.name, "worker_id")


@check("E.27", group=FUNCTION)
async def a_handler_that_calls_sys_exit_fails_its_job_only(side: WorkerSide) -> None:
    error_of(await side.stage.result(side.stage.add({"leave": 3}), SOON_S))
    same(output_of(await quickly_finished(side.stage, {"return": "next"})), "next", "the next job")


@check("E.10", group=FUNCTION)
async def a_value_that_is_no_json_fails_the_job_at_once(side: WorkerSide) -> None:
    error_of(await side.stage.result(side.stage.add({"odd": "object"}), SOON_S))


@check("E.10", group=FUNCTION)
async def nan_does_not_make_broken_json(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"odd": "nan"})
    need(isinstance(heard.json, dict), "expected a JSON object")


@check("A.3", group=FUNCTION)
async def an_empty_input_reaches_the_handler(side: WorkerSide) -> None:
    same(output_of(await quickly_finished(side.stage, {})), {"echo": {}}, "output")


@check("E.11", group=FUNCTION)
async def a_job_without_input_fails_instead_of_vanishing(side: WorkerSide) -> None:
    job_id = side.stage.new_id()
    side.stage.add_raw({"id": job_id})
    error_of(await side.stage.result(job_id, SOON_S))


@check("B.6", group=OUTAGE)
async def a_result_is_sent_again_when_the_service_fails(side: WorkerSide) -> None:
    await _delivered_after(side.stage, 500)


@check("E.8", group=OUTAGE)
async def a_result_is_sent_again_when_the_connection_breaks(side: WorkerSide) -> None:
    await _delivered_after(side.stage, 0)


@check("E.8", group=OUTAGE)
async def a_result_survives_eight_seconds_without_a_service(side: WorkerSide) -> None:
    stage = side.stage
    stage.fault = lambda what: 502 if what == "done" else None
    job_id = stage.add({"return": "kept"})
    await stage.until(lambda: stage.of(job_id), "the first try")
    await stage.quiet(8.0)
    stage.fault = None
    same(output_of(await stage.result(job_id, 40.0)), "kept", "output")


async def _delivered_after(stage: Stage, status: int) -> None:
    tries: list[str] = []

    def once(what: str) -> int | None:
        if what != "done":
            return None
        tries.append(what)
        return status if len(tries) == 1 else None

    stage.fault = once
    same(output_of(await stage.result(stage.add({"return": "kept"}))), "kept", "output")


@check("B.6", group=FUNCTION)
async def refresh_worker_in_the_output_asks_for_a_new_worker(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"return": {"refresh_worker": True, "rest": 1}})
    side.spent = True
    same(heard.json.get("stopPod"), True, "stopPod")
    same(heard.json.get("output"), {"rest": 1}, "output")


@check("E.23", group=COROUTINE)
async def progress_comes_in_order_and_never_after_the_result(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"progress": [1, 2, 3, 4, 5], "return": "end"})
    await stage.result(job_id)
    await stage.quiet(1.0)
    posts = stage.of(job_id)
    told = [one.json.get("output") for one in posts if not one.final]
    need(posts[-1].final, f"progress after the result: {short([one.json for one in posts])}")
    need(told == sorted(told), f"the progress came as {told}")


@check("B.6", group=COROUTINE)
async def progress_is_seen_while_the_job_runs(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"progress": [{"percent": 50}], "sleep": 2, "return": 1})
    post = await stage.until(lambda: stage.of(job_id), "progress")
    same(post[0].json, {"status": "IN_PROGRESS", "output": {"percent": 50}}, "the first post")
    await stage.result(job_id)


async def _streams(side: WorkerSide) -> None:
    stage = side.stage
    values = ["a", {"b": 1}, None, "ü"]
    job_id = stage.add({"yield": values})
    end = await stage.result(job_id)
    same(_chunks(stage, job_id), values, "chunks")
    need(all(one.at <= end.at for one in stage.of(job_id, "stream")), "a chunk came after the end")
    same(end.query.get("isStream"), "true", "isStream of the end")
    same(output_of(end), [], "output of the end")


@check("B.7", group=GENERATOR)
async def a_generator_streams_in_order_and_then_ends(side: WorkerSide) -> None:
    await _streams(side)


@check("B.7", group=ASYNC_GENERATOR)
async def an_async_generator_streams_in_order_and_then_ends(side: WorkerSide) -> None:
    await _streams(side)


@check("B.7", group=GENERATOR)
async def a_chunk_is_sent_when_it_is_yielded(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"yield": ["first", "second"], "sleep": 2.0})
    await stage.until(lambda: stage.of(job_id, "stream"), "the first chunk")
    need(not stage.of(job_id), "the end came before the first chunk")
    same(_chunks(stage, job_id), ["first"], "the chunks while the generator sleeps")
    await stage.result(job_id)


@check("B.6", group=GENERATOR)
async def a_generator_that_raises_fails_after_its_chunks(side: WorkerSide) -> None:
    stage = side.stage
    job_id = stage.add({"yield": [1, 2], "raise": "bøøm"})
    end = await stage.result(job_id)
    need("bøøm" in error_of(end) or "b\\u00f8\\u00f8m" in error_of(end), f"error: got {short(error_of(end))}")
    same(_chunks(stage, job_id), [1, 2], "the chunks before it")


@check("E.21", group=GENERATOR)
async def a_yielded_error_dict_is_told_as_json(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"yield": [1, {"error": {"message": "m"}}, 2]})
    same(json.loads(_as_json(error_of(heard))), {"message": "m"}, "the error, as JSON")


@check("C.1", group=AGGREGATE)
async def the_stream_is_the_output_when_it_is_aggregated(side: WorkerSide) -> None:
    heard = await quickly_finished(side.stage, {"yield": ["a", "b"]})
    same(output_of(heard), ["a", "b"], "output")


def _as_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        need(False, f"error: expected JSON, got {short(text)}")
    return text


def _chunks(stage: Stage, job_id: str) -> list[Any]:
    return [one.json.get("output") for one in stage.of(job_id, "stream")]
