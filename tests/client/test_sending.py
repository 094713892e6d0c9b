"""When a request is repeated. No I/O; the clock moves only when the client pauses or a reply takes time."""

from __future__ import annotations

from typing import Any

import pytest

from runpod_worker.client.exchange import NoReply, NotSent, Reply
from runpod_worker.client.replies import retry_after
from runpod_worker.client.sending import MAX_RETRY_S
from runpod_worker.core import errors

QUEUED = {"id": "job-1", "status": "IN_QUEUE"}


def submit(transport: Any) -> Any:
    return transport.perform(transport.calls.submit("ep", {"prompt": "a cat"}))


def view(transport: Any) -> Any:
    return transport.perform(transport.calls.view("ep", "job-1"))


@pytest.mark.parametrize("call", [submit, view])
def test_a_request_that_was_not_sent_is_repeated(transport: Any, call: Any) -> None:
    transport.fail(NotSent("refused"))
    transport.fail(NotSent("refused"))
    transport.reply(QUEUED)

    call(transport)

    assert len(transport.requests) == 3
    assert transport.pauses == [1.0, 2.0]


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize("call", [submit, view])
def test_a_refusal_without_effect_is_repeated(transport: Any, call: Any, status: int) -> None:
    transport.reply({"detail": "later"}, status=status)
    transport.reply(QUEUED)

    call(transport)

    assert len(transport.requests) == 2


@pytest.mark.parametrize("status", [500, 502, 504, 524])
def test_a_read_is_repeated_after_a_server_error_and_a_submission_is_not(transport: Any, status: int) -> None:
    transport.reply({"detail": "broken"}, status=status)
    transport.reply(QUEUED)
    assert view(transport) == QUEUED

    transport.reply({"detail": "broken"}, status=status)
    transport.forget()
    with pytest.raises(errors.ServiceRefusal, match="may have acted on it") as caught:
        submit(transport)

    assert caught.value.status == status
    assert transport.paths().count("POST ep/run") == 1


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_read_without_a_reply_is_repeated_and_a_submission_is_not(transport: Any, timed_out: bool) -> None:
    transport.fail(NoReply("the connection broke", timed_out=timed_out))
    transport.reply(QUEUED)
    assert view(transport) == QUEUED

    transport.fail(NoReply("the connection broke", timed_out=timed_out))
    transport.forget()
    with pytest.raises(errors.WaitTimedOut if timed_out else errors.LinkDown, match="may have acted on it"):
        submit(transport)

    assert transport.paths().count("POST ep/run") == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409])
@pytest.mark.parametrize("call", [submit, view])
def test_a_final_refusal_is_not_repeated(transport: Any, call: Any, status: int) -> None:
    transport.reply({"detail": "no"}, status=status)

    with pytest.raises(errors.ServiceRefusal):
        call(transport)

    assert len(transport.requests) == 1


def test_retry_after_sets_the_pause_when_it_is_longer(transport: Any) -> None:
    transport.reply(None, status=429, retry_after="7")
    transport.reply(None, status=429, retry_after="0.1")
    transport.reply(QUEUED)

    view(transport)

    assert transport.pauses == [7.0, 2.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("61", 60), ("1e9", 60), ("inf", 0), ("nan", 0), ("-5", 0), ("soon", 0), ("1e999", 0)],
)
def test_a_retry_after_is_a_number_of_seconds_up_to_a_minute(header: str, seconds: float) -> None:
    assert retry_after(Reply(429, b"", {"retry-after": header})) == seconds


def test_a_retry_after_beyond_the_time_out_raises_immediately(transport: Any) -> None:
    transport.reply({"detail": "busy"}, status=429, retry_after="3600")

    with pytest.raises(errors.BacklogFull, match="busy"):
        submit(transport)

    assert transport.pauses == []


def test_an_unreachable_service_raises_after_the_retry_limit(transport: Any) -> None:
    transport.fail(NotSent("connection refused"))

    with pytest.raises(errors.LinkDown, match="cannot reach the job service: connection refused") as caught:
        view(transport)

    assert MAX_RETRY_S / 2 < transport.time - 1000 < MAX_RETRY_S
    assert isinstance(caught.value.__cause__, NotSent)


def test_the_callers_time_out_bounds_tries_and_pauses(transport: Any) -> None:
    transport.fail(NotSent("connection refused"), after=0.5)

    with pytest.raises(errors.LinkDown):
        transport.perform(transport.calls.health("ep", 3.0))

    assert transport.time - 1000 <= 3.0
    assert [request.timeout_s for request in transport.requests] == [3.0, 1.5]


def test_purge_and_retry_are_not_repeated_and_cancel_is(transport: Any) -> None:
    transport.fail(NoReply("the connection broke"))
    with pytest.raises(errors.LinkDown):
        transport.perform(transport.calls.purge_queue("ep", 30.0))
    with pytest.raises(errors.LinkDown):
        transport.perform(transport.calls.retry("ep", "job-1", 30.0))
    assert transport.paths() == ["POST ep/purge-queue", "POST ep/retry/job-1"]

    transport.fail(NoReply("the connection broke"))
    transport.reply({"id": "job-1", "status": "CANCELLED"})

    assert transport.perform(transport.calls.cancel("ep", "job-1", 30.0))["status"] == "CANCELLED"


def test_ids_are_quoted_into_the_path(transport: Any) -> None:
    transport.reply(QUEUED)

    transport.perform(transport.calls.view("a/b", "c?d"))

    assert transport.paths() == ["GET a%2Fb/status/c%3Fd"]
