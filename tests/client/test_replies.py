"""Replies of the service as views and errors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runpod_worker.client.exchange import Reply
from runpod_worker.client.replies import decode_json, job_error, parse_view, refusal, retry_after
from runpod_worker.core import errors

JOB = "job-1"


def reply(status: int, body: Any, **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Reply(status, data, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("status", "detail", "job_id", "expected"),
    [
        (400, "input is missing", None, errors.BadRequest),
        (400, "bad request: body: exceeded max body size of 10MiB", None, errors.TooLarge),
        (413, "too big", None, errors.TooLarge),
        (401, "invalid api key", None, errors.Unauthorized),
        (403, "forbidden", None, errors.Unauthorized),
        (404, "job not found", JOB, errors.JobNotFound),
        (404, "endpoint not found", JOB, errors.EndpointNotFound),
        (404, "endpoint not found", None, errors.EndpointNotFound),
        (409, "a job that is COMPLETED does not take Retried", JOB, errors.IllegalTransition),
        (429, "too many", None, errors.BacklogFull),
        (503, "no store", None, errors.StoreUnavailable),
        (500, "worker may have crashed", None, errors.ServiceRefusal),
        (524, "a timeout occurred", None, errors.ServiceRefusal),
    ],
)
def test_each_refusal_has_its_error(status: int, detail: str, job_id: str | None, expected: type[Exception]) -> None:
    error = refusal(reply(status, {"status": status, "title": "T", "detail": detail}), "POST ep/run", job_id)

    assert type(error) is expected
    assert error.status == status
    assert detail in str(error)
    assert str(error).startswith("POST ep/run: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "no workers available"}, "no workers available"),
        (b"<html>Bad gateway</html>", "<html>Bad gateway</html>"),
        (b"", "an empty body"),
        (b"[1]", "'[1]'"),
    ],
)
def test_refusal_repeats_the_services_detail(body: Any, words: str) -> None:
    assert words in str(refusal(reply(500, body), "GET x", None))


def test_a_refused_key_is_named_as_the_problem() -> None:
    error = refusal(reply(401, {"detail": "invalid api key"}), "GET ep/health", None)

    assert "does not accept the API key" in str(error)
    assert "RUNPOD_API_KEY" in str(error)


def test_a_redirect_names_its_target_and_the_setting() -> None:
    error = refusal(reply(301, b"", location="https://elsewhere/v2"), "GET ep/health", None)

    assert "https://elsewhere/v2" in str(error)
    assert "endpoint_url_base" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("FAILED", errors.JobFailed), ("CANCELLED", errors.JobCancelled), ("TIMED_OUT", errors.JobTimedOut)],
)
def test_a_job_that_did_not_complete_is_an_error_with_its_view(status: str, kind: type[errors.JobError]) -> None:
    view = {"id": JOB, "status": status, "error": "boom"}

    error = job_error(view)

    assert type(error) is kind
    assert error.job == view
    assert JOB in str(error)
    assert str(error).endswith(": boom")


@pytest.mark.parametrize("status", ["IN_QUEUE", "IN_PROGRESS", "RUNNING", "COMPLETED", "SOMETHING_NEW"])
def test_other_statuses_are_no_error(status: str) -> None:
    assert job_error({"id": JOB, "status": status, "error": "boom"}) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ('{"error_type": "<class \'ValueError\'>", "error_message": "too wide"}', "ValueError: too wide"),
        ('{"error_message": "too wide"}', "failed: too wide"),
        ('{"code": 7}', '{"code": 7}'),
        ({"code": 7}, "{'code': 7}"),
        ("{", "failed: {"),
        ("[1]", "failed: [1]"),
    ],
)
def test_error_of_a_worker_is_read_as_one_line(error: Any, words: str) -> None:
    assert str(job_error({"id": JOB, "status": "FAILED", "error": error})).endswith(words)


def test_failure_without_an_error_is_still_a_sentence() -> None:
    assert str(job_error({"id": JOB, "status": "FAILED"})) == "job job-1 failed"


def test_nan_from_an_old_worker_is_read() -> None:
    assert str(decode_json(reply(200, b'{"output": NaN}'), "GET x")["output"]) == "nan"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status": 7}', b"\xff"])
def test_garbage_instead_of_a_job_is_a_link_error(body: bytes) -> None:
    with pytest.raises(errors.LinkDown, match="expected"):
        parse_view(reply(200, body), "GET x")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "-1"}, 0.0),
        ({"retry_after": "nan"}, 0.0),
        ({"retry_after": "soon"}, 0.0),
        ({"retry_after": "Mon, 01 Jan 2024 00:00:20 GMT", "date": "Mon, 01 Jan 2024 00:00:05 GMT"}, 15.0),
        ({"retry_after": "Mon, 01 Jan 2024 00:00:20 GMT"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(reply(429, b"", **headers)) == seconds
