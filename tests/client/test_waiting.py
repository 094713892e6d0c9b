"""How long the client waits for a job, and with which requests. No I/O, and a manual clock."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qs

import pytest

from runpod_worker.client.calls import MAX_POLL_S
from runpod_worker.client.exchange import NoReply
from runpod_worker.core import errors

QUEUED = {"id": "job-1", "status": "IN_QUEUE"}
RUNNING = {"id": "job-1", "status": "IN_PROGRESS"}
DONE = {"id": "job-1", "status": "COMPLETED", "output": [1]}
FAILED = {"id": "job-1", "status": "FAILED", "error": "boom"}


def wait(transport: Any, timeout: float = 600.0) -> Any:
    return transport.perform(transport.calls.wait("ep", "job-1", timeout))


def poll_durations(transport: Any) -> list[int]:
    return [int(parse_qs(request.path.partition("?")[2])["wait"][0]) for request in transport.requests]


def test_waiting_is_left_to_the_service(transport: Any) -> None:
    transport.reply(RUNNING, after=MAX_POLL_S)
    transport.reply(RUNNING, after=MAX_POLL_S)
    transport.reply(DONE, after=12.0)

    assert wait(transport) == DONE

    assert transport.paths() == ["GET ep/status-sync/job-1"] * 3
    assert transport.pauses == []
    assert poll_durations(transport) == [90_000] * 3


def test_a_poll_fits_into_the_time_left(transport: Any) -> None:
    transport.reply(RUNNING, after=9.0)
    transport.reply(DONE)

    wait(transport, 10.0)

    assert poll_durations(transport) == [9_000, 1_000]
    assert [request.timeout_s for request in transport.requests] == [10.0, 1.0]


def test_a_job_that_does_not_end_in_time_raises_a_time_out_error_with_its_view(transport: Any) -> None:
    transport.reply(RUNNING, after=9.0)
    transport.reply(RUNNING, after=1.0)

    with pytest.raises(TimeoutError, match="job job-1 has not ended within 10 s; it continues") as caught:
        wait(transport, 10.0)

    assert isinstance(caught.value, errors.WaitTimedOut)
    assert caught.value.job == RUNNING
    assert transport.time == 1010.0


def test_a_poll_cut_off_by_the_time_out_is_the_jobs_time_out(transport: Any) -> None:
    transport.reply(RUNNING, after=9.0)
    transport.fail(NoReply("no reply within 1 s", timed_out=True), after=1.0)

    with pytest.raises(errors.WaitTimedOut, match="has not ended within 10 s") as caught:
        wait(transport, 10.0)

    assert caught.value.job == RUNNING


def test_a_connection_cut_while_waiting_is_polled_again(transport: Any) -> None:
    transport.fail(NoReply("the connection broke"), after=40.0)
    transport.reply(DONE, after=50.0)

    assert wait(transport) == DONE
    assert transport.requests[1].timeout_s > MAX_POLL_S


def test_a_service_that_answers_early_is_polled_after_growing_pauses(transport: Any) -> None:
    for _ in range(4):
        transport.reply(RUNNING)
    transport.reply(DONE)

    wait(transport)

    assert transport.pauses == [1.0, 2.0, 3.0, 4.0]


def test_a_service_without_status_sync_is_polled_by_status_from_then_on(transport: Any) -> None:
    transport.reply({"detail": "no such route"}, status=404)
    transport.reply(RUNNING)
    transport.reply(RUNNING)
    transport.reply(DONE)
    assert wait(transport) == DONE
    assert transport.paths() == ["GET ep/status-sync/job-1", *["GET ep/status/job-1"] * 3]

    transport.requests.clear()
    wait(transport)

    assert transport.paths() == ["GET ep/status/job-1"]


def test_an_unknown_job_is_distinguished_from_an_unknown_route(transport: Any) -> None:
    transport.reply({"detail": "job not found"}, status=404)

    with pytest.raises(errors.JobNotFound, match="no job job-1"):
        wait(transport)

    transport.reply(DONE)
    transport.forget()
    assert wait(transport) == DONE
    assert transport.paths()[-1] == "GET ep/status-sync/job-1"


def test_run_sync_needs_one_request_when_the_job_ends_within_the_poll(transport: Any) -> None:
    transport.reply(DONE, after=80.0)

    assert transport.perform(transport.calls.run_sync("ep", {"a": 1}, 86400.0)) == [1]

    assert [request.path for request in transport.requests] == ["ep/runsync?wait=90000"]
    assert transport.requests[0].body == b'{"input":{"a":1}}'


def test_run_sync_waits_on_after_the_poll(transport: Any) -> None:
    transport.reply(QUEUED, after=90.0)
    transport.reply(DONE, after=30.0)

    assert transport.perform(transport.calls.run_sync("ep", {"a": 1}, 86400.0)) == [1]

    assert transport.paths() == ["POST ep/runsync", "GET ep/status-sync/job-1"]


def test_run_sync_that_times_out_names_the_job(transport: Any) -> None:
    transport.reply(QUEUED, after=9.0)
    transport.reply(RUNNING, after=1.0)

    with pytest.raises(errors.WaitTimedOut) as caught:
        transport.perform(transport.calls.run_sync("ep", {"a": 1}, 10.0))

    assert caught.value.job["id"] == "job-1"


def test_run_sync_of_a_failed_job_raises(transport: Any) -> None:
    transport.reply(FAILED)

    with pytest.raises(errors.JobFailed, match="job job-1 failed: boom") as caught:
        transport.perform(transport.calls.run_sync("ep", {"a": 1}, 10.0))

    assert caught.value.job == FAILED


def test_a_completed_job_without_output_gives_none(transport: Any) -> None:
    transport.reply({"id": "job-1", "status": "COMPLETED"})

    assert transport.perform(transport.calls.run_sync("ep", {"a": 1}, 10.0)) is None


def test_a_submission_answered_without_an_id_is_a_link_error(transport: Any) -> None:
    transport.reply({"status": "IN_QUEUE"})

    with pytest.raises(errors.LinkDown, match="expected a job with an id"):
        transport.perform(transport.calls.submit("ep", {}))


def test_stream_polls_again_after_a_poll_without_chunks(transport: Any) -> None:
    transport.reply(RUNNING | {"stream": []}, after=MAX_POLL_S)
    transport.reply(RUNNING | {"stream": [{"output": "a"}, {"output": None}]})

    assert transport.perform(transport.calls.chunks("ep", "job-1", 0)) == (["a", None], 0)
    assert transport.pauses == []


def test_stream_pauses_when_a_service_answers_early(transport: Any) -> None:
    transport.reply(RUNNING | {"stream": []})
    transport.reply(RUNNING | {"stream": []})
    transport.reply(DONE | {"stream": []})

    assert transport.perform(transport.calls.chunks("ep", "job-1", 0)) == ([], 0)
    assert transport.pauses == [1.0, 2.0]


def test_last_chunks_that_arrive_with_the_final_status_are_not_lost(transport: Any) -> None:
    transport.reply({"status": "COMPLETED", "stream": [{"output": "z"}]})
    transport.reply({"status": "COMPLETED", "stream": []})

    assert transport.perform(transport.calls.chunks("ep", "job-1", 0))[0] == ["z"]
    assert transport.perform(transport.calls.chunks("ep", "job-1", 0))[0] == []


def test_stream_of_a_failed_job_raises_with_the_whole_view(transport: Any) -> None:
    transport.reply({"status": "FAILED", "stream": []})
    transport.reply(FAILED)

    with pytest.raises(errors.JobFailed, match="boom") as caught:
        transport.perform(transport.calls.chunks("ep", "job-1", 0))

    assert caught.value.job == FAILED


def test_stream_of_a_failed_job_raises_even_without_its_status(transport: Any) -> None:
    transport.reply({"status": "CANCELLED", "stream": []})
    transport.reply({"detail": "job not found"}, status=404)

    with pytest.raises(errors.JobCancelled, match="job job-1 was cancelled"):
        transport.perform(transport.calls.chunks("ep", "job-1", 0))


@pytest.mark.parametrize("stream", [[7], [{"metrics": {}}]])
def test_chunks_without_output_are_a_link_error(transport: Any, stream: list[Any]) -> None:
    transport.reply({"status": "IN_PROGRESS", "stream": stream})

    with pytest.raises(errors.LinkDown, match="expected chunks with an output"):
        transport.perform(transport.calls.chunks("ep", "job-1", 0))


def test_waiting_without_a_time_out_never_ends(transport: Any) -> None:
    for _ in range(1000):
        transport.reply(RUNNING, after=MAX_POLL_S)
    transport.reply(DONE)

    assert wait(transport, math.inf) == DONE


def test_run_sync_without_a_time_out_never_ends(transport: Any) -> None:
    transport.reply(QUEUED, after=MAX_POLL_S)
    for _ in range(1000):
        transport.reply(RUNNING, after=MAX_POLL_S)
    transport.reply(DONE)

    assert transport.perform(transport.calls.run_sync("ep", {}, None)) == [1]
