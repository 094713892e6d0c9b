"""Both clients, against a real HTTP server."""

from __future__ import annotations

import gzip
import inspect
import threading
import time
from typing import Any

import pytest

import runpod_worker
from runpod_worker import AsyncioEndpoint, AsyncioJob, Endpoint
from runpod_worker.client.blocking import Job
from runpod_worker.core import errors

QUEUED = {"id": "job-1", "status": "IN_QUEUE"}
RUNNING = {"id": "job-1", "status": "IN_PROGRESS", "output": "50 %"}
DONE = {"id": "job-1", "status": "COMPLETED", "output": {"sum": 3}, "delayTime": 1, "executionTime": 2}
FAILED = {"id": "job-1", "status": "FAILED", "error": "boom"}


def test_run_submits_the_input_and_returns_a_job(service: Any, endpoint: Any) -> None:
    service.on("POST ep/run", QUEUED)

    job = endpoint.run({"a": 1})

    assert job.job_id == "job-1"
    assert job.endpoint_id == "ep"
    assert service.seen[0].json == {"input": {"a": 1}}
    assert service.seen[0].headers["Authorization"] == "Bearer secret-key"
    assert service.seen[0].headers["Content-Type"] == "application/json"


def test_a_whole_request_is_sent_unchanged(service: Any, endpoint: Any) -> None:
    service.on("POST ep/run", QUEUED)
    request = {"input": {}, "webhook": "https://example.com/done", "policy": {"executionTimeout": 5000}}

    endpoint.run(request)

    assert service.seen[0].json == request


def test_run_sync_returns_the_output(service: Any, endpoint: Any) -> None:
    service.on("POST ep/runsync", DONE)

    assert endpoint.run_sync({"a": 1}) == {"sum": 3}
    assert service.seen[0].query == {"wait": "90000"}


def test_status_sends_requests_until_the_job_is_final(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", QUEUED, RUNNING, DONE, FAILED)
    job = endpoint.job("job-1")

    assert [job.status() for _ in range(4)] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "COMPLETED"]
    assert job.job_status == "COMPLETED"
    assert job.job_output == {"sum": 3}
    assert len(service.seen) == 3


def test_view_is_the_whole_reply(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", DONE)

    assert endpoint.job("job-1").view() == DONE


def test_output_without_time_out_does_not_wait(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", QUEUED, RUNNING, DONE)
    job = endpoint.job("job-1")

    assert [job.output() for _ in range(4)] == [None, "50 %", {"sum": 3}, {"sum": 3}]


@pytest.mark.parametrize("timeout", [30, None])
def test_output_waits_for_the_end(service: Any, endpoint: Any, timeout: float | None) -> None:
    ended = threading.Event()
    service.on("GET ep/status-sync/job-1", service.answer(json=DONE, release=ended))

    def end_once_asked() -> None:
        service.await_requests(1)
        ended.set()

    once_asked = threading.Thread(target=end_once_asked)
    once_asked.start()

    assert endpoint.job("job-1").output(timeout) == {"sum": 3}
    once_asked.join()


def test_output_that_is_late_raises_a_time_out_error(service: Any, endpoint: Any) -> None:
    never = threading.Event()
    service.on("GET ep/status-sync/job-1", service.answer(json=RUNNING, release=never))
    started = time.monotonic()

    with pytest.raises(TimeoutError, match=r"has not ended within 0\.2 s; it continues"):
        endpoint.job("job-1").output(0.2)

    assert time.monotonic() - started < 10
    never.set()


@pytest.mark.parametrize(
    ("status", "kind"),
    [("FAILED", errors.JobFailed), ("CANCELLED", errors.JobCancelled), ("TIMED_OUT", errors.JobTimedOut)],
)
def test_a_job_that_did_not_complete_raises_its_view(service: Any, endpoint: Any, status: str, kind: Any) -> None:
    view = {"id": "job-1", "status": status, "error": "boom"}
    service.on("GET ep/status/job-1", view)
    service.on("GET ep/status-sync/job-1", view)
    service.on("POST ep/runsync", view)
    service.on("GET ep/stream/job-1", {"status": status, "stream": []})

    for call in (
        lambda: endpoint.run_sync({}),
        lambda: endpoint.job("job-1").output(),
        lambda: endpoint.job("job-1").output(5),
        lambda: list(endpoint.job("job-1").stream()),
    ):
        with pytest.raises(kind, match="boom") as caught:
            call()
        assert caught.value.job == view
    assert endpoint.job("job-1").status() == status


def test_stream_yields_each_chunk_as_it_arrives(service: Any, endpoint: Any) -> None:
    more = threading.Event()
    service.on(
        "GET ep/stream/job-1",
        RUNNING | {"stream": [{"output": 1}, {"output": {"x": 2}}]},
        service.answer(json={"status": "COMPLETED", "stream": [{"output": None}]}, release=more),
        {"status": "COMPLETED", "stream": []},
    )
    stream = endpoint.job("job-1").stream()

    assert next(stream) == 1
    assert next(stream) == {"x": 2}
    more.set()
    assert list(stream) == [None]


def test_stream_of_a_failing_job_yields_its_chunks_and_raises(service: Any, endpoint: Any) -> None:
    service.on(
        "GET ep/stream/job-1", {"status": "FAILED", "stream": [{"output": 1}]}, {"status": "FAILED", "stream": []}
    )
    service.on("GET ep/status/job-1", FAILED)
    stream = endpoint.job("job-1").stream()

    assert next(stream) == 1
    with pytest.raises(errors.JobFailed):
        next(stream)


def test_cancel_health_and_purge_return_the_reply(service: Any, endpoint: Any) -> None:
    service.on("POST ep/cancel/job-1", {"id": "job-1", "status": "CANCELLED"})
    service.on("GET ep/health", {"jobs": {"inQueue": 0}, "workers": {}})
    service.on("POST ep/purge-queue", {"removed": 2, "status": "completed"})

    assert endpoint.job("job-1").cancel(timeout=5)["status"] == "CANCELLED"
    assert endpoint.health(timeout=5)["jobs"] == {"inQueue": 0}
    assert endpoint.purge_queue(timeout=5)["removed"] == 2


def test_a_retried_job_is_followed_again(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", FAILED, DONE)
    service.on("POST ep/retry/job-1", QUEUED)
    job = endpoint.job("job-1")
    assert job.status() == "FAILED"

    job.retry(timeout=5)

    assert job.job_status is None
    assert job.output() == {"sum": 3}


def test_a_request_to_a_busy_service_is_repeated(service: Any, endpoint: Any) -> None:
    service.on("POST ep/run", service.answer(status=429, headers={"Retry-After": "0.01"}), QUEUED)

    endpoint.run({})

    assert service.paths() == ["POST ep/run"] * 2


def test_a_read_is_repeated_when_the_connection_is_cut(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", service.answer(drop=True), service.answer(status=500), DONE)

    assert endpoint.job("job-1").status() == "COMPLETED"


def test_a_submission_is_not_repeated_when_the_connection_is_cut(service: Any, endpoint: Any) -> None:
    service.on("POST ep/run", service.answer(drop=True), QUEUED)

    with pytest.raises(errors.LinkDown, match="may have acted on it"):
        endpoint.run({})

    assert service.paths() == ["POST ep/run"]


def test_a_refused_connection_is_a_link_error_that_names_the_address(
    make_endpoint: Any, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setitem(vars(runpod_worker), "endpoint_url_base", f"http://127.0.0.1:{unused_tcp_port}/v2")

    with pytest.raises(errors.LinkDown, match=f"GET ep/health: cannot reach the job service: .*{unused_tcp_port}"):
        make_endpoint().health(timeout=0.3)


def test_a_refused_key_is_not_shown_in_the_error(service: Any, endpoint: Any) -> None:
    service.on("GET ep/health", service.answer(status=401, json={"detail": "invalid api key"}))

    with pytest.raises(errors.Unauthorized, match="does not accept the API key") as caught:
        endpoint.health()

    assert "secret-key" not in str(caught.value)


def test_unknown_job_and_unknown_endpoint_have_different_errors(service: Any, endpoint: Any) -> None:
    service.on("GET ep/status/job-1", service.answer(status=404, json={"detail": "job not found"}))
    service.on("POST ep/run", service.answer(status=404, json={"detail": "endpoint not found"}))

    with pytest.raises(errors.JobNotFound, match="no job job-1"):
        endpoint.job("job-1").status()
    with pytest.raises(errors.EndpointNotFound, match="check the endpoint id"):
        endpoint.run({})


def test_a_redirect_is_not_followed(service: Any, endpoint: Any) -> None:
    service.on("GET ep/health", service.answer(status=307, headers={"Location": "http://elsewhere/"}))

    with pytest.raises(errors.ServiceRefusal, match="redirected to http://elsewhere/"):
        endpoint.health()


def test_compressed_and_large_outputs_arrive_whole(service: Any, endpoint: Any) -> None:
    view = DONE | {"output": "x" * (20 << 20)}
    packed = gzip.compress(b'{"id":"job-1","status":"COMPLETED","output":"small"}')
    service.on("POST ep/runsync", view, service.answer(body=packed, headers={"Content-Encoding": "gzip"}))

    assert endpoint.run_sync({"image": "y" * (8 << 20)}) == view["output"]
    assert endpoint.run_sync({}) == "small"


def test_a_hanging_service_raises_in_time(service: Any, endpoint: Any) -> None:
    never = threading.Event()
    service.on("GET ep/health", service.answer(release=never))

    with pytest.raises(TimeoutError, match=r"GET ep/health: no reply within 0\.2 s"):
        endpoint.health(timeout=0.2)
    never.set()


def test_the_argument_wins_over_the_modules_key(service: Any, make_endpoint: Any) -> None:
    service.on("GET ep/health", {})

    make_endpoint(api_key="own-key").health()

    assert service.seen[0].headers["Authorization"] == "Bearer own-key"


@pytest.mark.parametrize(("blocking", "awaited"), [(Endpoint, AsyncioEndpoint), (Job, AsyncioJob)])
def test_both_clients_have_the_same_methods_and_arguments(blocking: type, awaited: type) -> None:
    def methods(client: type) -> dict[str, list[tuple[str, Any]]]:
        functions = {
            name: member for name, member in vars(client).items() if inspect.isfunction(member) and name[0] != "_"
        }
        return {
            name: [
                (
                    parameter.name.replace("endpoint_input", "request_input"),
                    parameter.default,
                )  # the SDK's names differ here
                for parameter in inspect.signature(member).parameters.values()
            ]
            for name, member in functions.items()
        }

    others = methods(awaited)
    others.pop("close", None)

    assert methods(blocking) == others
