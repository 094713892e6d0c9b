"""How long the client waits for a job, and on what. No I/O, and a clock that only moves when told."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qs

import pytest

from runpod_worker.client.calls import HOLD_S
from runpod_worker.client.exchange import NoReply
from runpod_worker.core import errors

QUEUED = {"id": "job-1", "status": "IN_QUEUE"}
RUNNING = {"id": "job-1", "status": "IN_PROGRESS"}
DONE = {"id": "job-1", "status": "COMPLETED", "output": [1]}
FAILED = {"id": "job-1", "status": "FAILED", "error": "boom"}


def wait(desk: Any, timeout: float = 600.0) -> Any:
    return desk.perform(desk.calls.wait("ep", "job-1", timeout))


def holds(desk: Any) -> list[int]:
    return [int(parse_qs(one.path.partition("?")[2])["wait"][0]) for one in desk.requests]


def test_waiting_is_left_to_the_service(desk: Any) -> None:
    desk.reply(RUNNING, after=HOLD_S)
    desk.reply(RUNNING, after=HOLD_S)
    desk.reply(DONE, after=12.0)

    assert wait(desk) == DONE

    assert desk.paths() == ["GET ep/status-sync/job-1"] * 3
    assert desk.pauses == []
    assert holds(desk) == [90_000] * 3


def test_the_hold_asked_for_fits_into_the_time_left(desk: Any) -> None:
    desk.reply(RUNNING, after=9.0)
    desk.reply(DONE)

    wait(desk, 10.0)

    assert holds(desk) == [9_000, 1_000]
    assert [one.timeout_s for one in desk.requests] == [10.0, 1.0]


def test_a_job_that_does_not_end_in_time_raises_a_time_out_error_with_its_view(desk: Any) -> None:
    desk.reply(RUNNING, after=9.0)
    desk.reply(RUNNING, after=1.0)

    with pytest.raises(TimeoutError, match="job job-1 has not ended within 10 s; it goes on") as caught:
        wait(desk, 10.0)

    assert isinstance(caught.value, errors.WaitTimedOut)
    assert caught.value.job == RUNNING
    assert desk.time == 1010.0


def test_a_poll_cut_off_by_the_time_out_is_the_jobs_time_out(desk: Any) -> None:
    desk.reply(RUNNING, after=9.0)
    desk.fail(NoReply("no reply within 1 s", timed_out=True), after=1.0)

    with pytest.raises(errors.WaitTimedOut, match="has not ended within 10 s") as caught:
        wait(desk, 10.0)

    assert caught.value.job == RUNNING


def test_a_connection_cut_while_waiting_is_polled_again(desk: Any) -> None:
    desk.fail(NoReply("the connection broke"), after=40.0)
    desk.reply(DONE, after=50.0)

    assert wait(desk) == DONE
    assert desk.requests[1].timeout_s > HOLD_S


def test_a_service_that_does_not_hold_is_asked_after_growing_pauses(desk: Any) -> None:
    for _ in range(4):
        desk.reply(RUNNING)
    desk.reply(DONE)

    wait(desk)

    assert desk.pauses == [1.0, 2.0, 3.0, 4.0]


def test_a_service_without_status_sync_is_asked_by_status_from_then_on(desk: Any) -> None:
    desk.reply({"detail": "no such route"}, status=404)
    desk.reply(RUNNING)
    desk.reply(RUNNING)
    desk.reply(DONE)
    assert wait(desk) == DONE
    assert desk.paths() == ["GET ep/status-sync/job-1", *["GET ep/status/job-1"] * 3]

    desk.requests.clear()
    wait(desk)

    assert desk.paths() == ["GET ep/status/job-1"]


def test_an_unknown_job_is_told_from_an_unknown_route(desk: Any) -> None:
    desk.reply({"detail": "job not found"}, status=404)

    with pytest.raises(errors.JobNotFound, match="no job job-1 there"):
        wait(desk)

    desk.reply(DONE)
    desk.forget()
    assert wait(desk) == DONE
    assert desk.paths()[-1] == "GET ep/status-sync/job-1"


def test_run_sync_needs_one_request_when_the_job_ends_within_the_hold(desk: Any) -> None:
    desk.reply(DONE, after=80.0)

    assert desk.perform(desk.calls.run_sync("ep", {"a": 1}, 86400.0)) == [1]

    assert [one.path for one in desk.requests] == ["ep/runsync?wait=90000"]
    assert desk.requests[0].body == b'{"input":{"a":1}}'


def test_run_sync_goes_on_waiting_when_the_hold_is_over(desk: Any) -> None:
    desk.reply(QUEUED, after=90.0)
    desk.reply(DONE, after=30.0)

    assert desk.perform(desk.calls.run_sync("ep", {"a": 1}, 86400.0)) == [1]

    assert desk.paths() == ["POST ep/runsync", "GET ep/status-sync/job-1"]


def test_run_sync_that_times_out_names_the_job(desk: Any) -> None:
    desk.reply(QUEUED, after=9.0)
    desk.reply(RUNNING, after=1.0)

    with pytest.raises(errors.WaitTimedOut) as caught:
        desk.perform(desk.calls.run_sync("ep", {"a": 1}, 10.0))

    assert caught.value.job["id"] == "job-1"


def test_run_sync_of_a_failed_job_raises(desk: Any) -> None:
    desk.reply(FAILED)

    with pytest.raises(errors.JobFailed, match="job job-1 failed: boom") as caught:
        desk.perform(desk.calls.run_sync("ep", {"a": 1}, 10.0))

    assert caught.value.job == FAILED


def test_a_completed_job_without_output_gives_none(desk: Any) -> None:
    desk.reply({"id": "job-1", "status": "COMPLETED"})

    assert desk.perform(desk.calls.run_sync("ep", {"a": 1}, 10.0)) is None


def test_a_submission_answered_without_an_id_is_a_link_error(desk: Any) -> None:
    desk.reply({"status": "IN_QUEUE"})

    with pytest.raises(errors.LinkDown, match="expected a job with an id"):
        desk.perform(desk.calls.submit("ep", {}))


def test_stream_polls_again_when_a_hold_ends_without_chunks(desk: Any) -> None:
    desk.reply(RUNNING | {"stream": []}, after=HOLD_S)
    desk.reply(RUNNING | {"stream": [{"output": "a"}, {"output": None}]})

    assert desk.perform(desk.calls.chunks("ep", "job-1", 0)) == (["a", None], 0)
    assert desk.pauses == []


def test_stream_of_a_service_that_does_not_hold_pauses(desk: Any) -> None:
    desk.reply(RUNNING | {"stream": []})
    desk.reply(RUNNING | {"stream": []})
    desk.reply(DONE | {"stream": []})

    assert desk.perform(desk.calls.chunks("ep", "job-1", 0)) == ([], 0)
    assert desk.pauses == [1.0, 2.0]


def test_last_chunks_that_come_with_the_final_status_are_not_lost(desk: Any) -> None:
    desk.reply({"status": "COMPLETED", "stream": [{"output": "z"}]})
    desk.reply({"status": "COMPLETED", "stream": []})

    assert desk.perform(desk.calls.chunks("ep", "job-1", 0))[0] == ["z"]
    assert desk.perform(desk.calls.chunks("ep", "job-1", 0))[0] == []


def test_stream_of_a_failed_job_raises_with_the_whole_view(desk: Any) -> None:
    desk.reply({"status": "FAILED", "stream": []})
    desk.reply(FAILED)

    with pytest.raises(errors.JobFailed, match="boom") as caught:
        desk.perform(desk.calls.chunks("ep", "job-1", 0))

    assert caught.value.job == FAILED


def test_stream_of_a_failed_job_raises_even_when_its_status_is_forgotten(desk: Any) -> None:
    desk.reply({"status": "CANCELLED", "stream": []})
    desk.reply({"detail": "job not found"}, status=404)

    with pytest.raises(errors.JobCancelled, match="job job-1 was cancelled"):
        desk.perform(desk.calls.chunks("ep", "job-1", 0))


@pytest.mark.parametrize("stream", [[7], [{"metrics": {}}]])
def test_chunks_without_output_are_a_link_error(desk: Any, stream: list[Any]) -> None:
    desk.reply({"status": "IN_PROGRESS", "stream": stream})

    with pytest.raises(errors.LinkDown, match="expected chunks with an output"):
        desk.perform(desk.calls.chunks("ep", "job-1", 0))


def test_waiting_without_a_time_out_has_no_end(desk: Any) -> None:
    for _ in range(1000):
        desk.reply(RUNNING, after=HOLD_S)
    desk.reply(DONE)

    assert wait(desk, math.inf) == DONE


def test_run_sync_without_a_time_out_has_no_end(desk: Any) -> None:
    desk.reply(QUEUED, after=HOLD_S)
    for _ in range(1000):
        desk.reply(RUNNING, after=HOLD_S)
    desk.reply(DONE)

    assert desk.perform(desk.calls.run_sync("ep", {}, None)) == [1]
