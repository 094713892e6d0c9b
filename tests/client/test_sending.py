"""When a request is sent again. No I/O: the clock moves only when the client pauses or a reply takes time."""

from __future__ import annotations

from typing import Any

import pytest

from runpod_worker.client.exchange import NoReply, NotSent
from runpod_worker.client.sending import PATIENCE_S
from runpod_worker.core import errors

QUEUED = {"id": "job-1", "status": "IN_QUEUE"}


def submit(desk: Any) -> Any:
    return desk.perform(desk.calls.submit("ep", {"prompt": "a cat"}))


def look(desk: Any) -> Any:
    return desk.perform(desk.calls.view("ep", "job-1"))


@pytest.mark.parametrize("call", [submit, look])
def test_a_request_that_never_left_is_sent_again(desk: Any, call: Any) -> None:
    desk.fail(NotSent("refused"))
    desk.fail(NotSent("refused"))
    desk.reply(QUEUED)

    call(desk)

    assert len(desk.requests) == 3
    assert desk.pauses == [1.0, 2.0]


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize("call", [submit, look])
def test_a_refusal_that_did_nothing_is_tried_again(desk: Any, call: Any, status: int) -> None:
    desk.reply({"detail": "later"}, status=status)
    desk.reply(QUEUED)

    call(desk)

    assert len(desk.requests) == 2


@pytest.mark.parametrize("status", [500, 502, 504, 524])
def test_a_read_is_repeated_after_a_server_error_and_a_submission_is_not(desk: Any, status: int) -> None:
    desk.reply({"detail": "broken"}, status=status)
    desk.reply(QUEUED)
    assert look(desk) == QUEUED

    desk.reply({"detail": "broken"}, status=status)
    desk.forget()
    with pytest.raises(errors.ServiceRefusal, match="may have acted on it") as caught:
        submit(desk)

    assert caught.value.status == status
    assert desk.paths().count("POST ep/run") == 1


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_read_without_a_reply_is_repeated_and_a_submission_is_not(desk: Any, timed_out: bool) -> None:
    desk.fail(NoReply("the connection broke", timed_out=timed_out))
    desk.reply(QUEUED)
    assert look(desk) == QUEUED

    desk.fail(NoReply("the connection broke", timed_out=timed_out))
    desk.forget()
    with pytest.raises(errors.WaitTimedOut if timed_out else errors.LinkDown, match="may have acted on it"):
        submit(desk)

    assert desk.paths().count("POST ep/run") == 1


@pytest.mark.parametrize("status", [400, 401, 404, 409])
@pytest.mark.parametrize("call", [submit, look])
def test_a_final_refusal_is_not_repeated(desk: Any, call: Any, status: int) -> None:
    desk.reply({"detail": "no"}, status=status)

    with pytest.raises(errors.ServiceRefusal):
        call(desk)

    assert len(desk.requests) == 1


def test_retry_after_is_honoured_when_longer_than_the_own_pause(desk: Any) -> None:
    desk.reply(None, status=429, retry_after="7")
    desk.reply(None, status=429, retry_after="0.1")
    desk.reply(QUEUED)

    look(desk)

    assert desk.pauses == [7.0, 2.0]


def test_a_retry_after_beyond_the_time_out_gives_up_at_once(desk: Any) -> None:
    desk.reply({"detail": "busy"}, status=429, retry_after="3600")

    with pytest.raises(errors.BacklogFull, match="busy"):
        submit(desk)

    assert desk.pauses == []


def test_an_unreachable_service_is_given_up_after_the_patience(desk: Any) -> None:
    desk.fail(NotSent("connection refused"))

    with pytest.raises(errors.LinkDown, match="cannot reach the job service: connection refused") as caught:
        look(desk)

    assert PATIENCE_S / 2 < desk.time - 1000 < PATIENCE_S
    assert isinstance(caught.value.__cause__, NotSent)


def test_the_callers_time_out_bounds_tries_and_pauses(desk: Any) -> None:
    desk.fail(NotSent("connection refused"), after=0.5)

    with pytest.raises(errors.LinkDown):
        desk.perform(desk.calls.health("ep", 3.0))

    assert desk.time - 1000 <= 3.0
    assert [one.timeout_s for one in desk.requests] == [3.0, 1.5]


def test_purge_and_retry_are_not_repeated_and_cancel_is(desk: Any) -> None:
    desk.fail(NoReply("the connection broke"))
    with pytest.raises(errors.LinkDown):
        desk.perform(desk.calls.purge_queue("ep", 30.0))
    with pytest.raises(errors.LinkDown):
        desk.perform(desk.calls.retry("ep", "job-1", 30.0))
    assert desk.paths() == ["POST ep/purge-queue", "POST ep/retry/job-1"]

    desk.fail(NoReply("the connection broke"))
    desk.reply({"id": "job-1", "status": "CANCELLED"})

    assert desk.perform(desk.calls.cancel("ep", "job-1", 30.0))["status"] == "CANCELLED"


def test_ids_are_quoted_into_the_path(desk: Any) -> None:
    desk.reply(QUEUED)

    desk.perform(desk.calls.view("a/b", "c?d"))

    assert desk.paths() == ["GET a%2Fb/status/c%3Fd"]
