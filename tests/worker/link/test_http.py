"""The worker's side of RunPod's protocol (protocol B) and of docs/extensions.md, against a real HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runpod_worker.config import worker_settings
from runpod_worker.core.dispatch.values import AttemptRef, TakeRequest
from runpod_worker.core.errors import LinkBusy, LinkDown, LinkRefused, SettingsError
from runpod_worker.core.protocol import EXTENSIONS
from runpod_worker.worker.link.http import MAX_RETRY_AFTER_S, HttpLink
from runpod_worker.worker.link.transport import HttpTransport, Reply

MakeLink = Callable[..., HttpLink]


@pytest.fixture
async def make_link(service: Any) -> AsyncIterator[MakeLink]:
    links = []

    def make(**given: Any) -> HttpLink:
        base = service.url
        settings = {
            "take_url": f"{base}/job-take/pod-1?gpu=NVIDIA+RTX+A5000",
            "done_url": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+RTX+A5000",
            "stream_url": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=NVIDIA+RTX+A5000",
            "ping_url": f"{base}/ping/$RUNPOD_POD_ID?gpu=NVIDIA+RTX+A5000",
            "worker_id": "pod-1",
            "api_key": "KEY123",
        }
        links.append(HttpLink(worker_settings({**settings, **given}, env={}), HttpTransport()))
        return links[-1]

    yield make
    for link in links:
        await link.close()


@pytest.fixture
async def link(make_link: MakeLink) -> HttpLink:
    return make_link()


@pytest.fixture
async def our_link(agreed: Any, make_link: MakeLink) -> HttpLink:
    link = make_link()
    await link.heartbeat([])
    return link


TAKE = TakeRequest(1, "t1")
JOB = AttemptRef("job-1-u1", None)


# ---------------------------------------------------------------- job-take


async def test_a_take_for_one_job_is_sent_as_the_sdk_sends_it(service: Any, link: HttpLink) -> None:
    await service.add({"id": "a", "input": {}})

    await link.take(TAKE, busy=False)

    [sent] = service.to("job-take")
    assert sent.target == "/v2/ep/job-take/pod-1?gpu=NVIDIA+RTX+A5000&job_in_progress=0"
    assert sent.headers["authorization"] == "KEY123"
    assert not [name for name in sent.headers if name.startswith("x-")]


async def test_a_take_for_several_jobs_goes_to_the_batch_route(service: Any, link: HttpLink) -> None:
    await service.add({"id": "a", "input": {}}, {"id": "b", "input": None})

    jobs = await link.take(TakeRequest(3, "t"), busy=True)

    assert [job.id for job in jobs] == ["a", "b"]
    [sent] = service.to("job-take-batch")
    assert sent.target == "/v2/ep/job-take-batch/pod-1?gpu=NVIDIA+RTX+A5000&batch_size=3&job_in_progress=1"


async def test_parameters_start_with_a_question_mark_where_the_template_has_none(
    service: Any, make_link: MakeLink
) -> None:
    link = make_link(take_url=f"{service.url}/job-take/$RUNPOD_POD_ID", done_url=f"{service.url}/job-done/$ID")
    await service.add({"id": "a", "input": {}})

    await link.take(TAKE, busy=False)
    await link.finish(JOB, b"{}")

    assert service.to("job-take")[0].target == "/v2/ep/job-take/pod-1?job_in_progress=0"
    assert service.to("job-done")[0].target == "/v2/ep/job-done/job-1-u1?isStream=false"


@pytest.mark.parametrize("status", [204, 400])
async def test_no_job_is_no_error(service: Any, link: HttpLink, status: int) -> None:
    service.script("job-take", status)

    assert list(await link.take(TAKE, busy=False)) == []


async def test_the_body_of_a_job_is_passed_on_untouched(service: Any, link: HttpLink) -> None:
    body = '{"id": "a",  "input": {"x": 1.0e3, "é": "\\u00e9"}, "webhook": "https://x"}'.encode()
    service.script("job-take", body)

    [job] = await link.take(TAKE, busy=False)

    assert (job.id, job.body, job.error, job.attempt) == ("a", body, None, None)


async def test_an_array_is_taken_from_the_single_route_too(service: Any, link: HttpLink) -> None:
    service.script("job-take", b'[{"id":"a","input":1},{"id":"b","input":2}]')

    assert [job.body for job in await link.take(TAKE, busy=False)] == [b'{"id":"a","input":1}', b'{"id":"b","input":2}']


async def test_a_job_without_input_comes_with_an_error(service: Any, link: HttpLink) -> None:
    service.script("job-take", b'{"id":"a"}')

    [job] = await link.take(TAKE, busy=False)

    assert "`input`" in (job.error or "")


async def test_what_is_not_a_job_does_not_cost_the_rest_of_the_batch(service: Any, link: HttpLink) -> None:
    service.script("job-take", b'[{"input":1}, 7, {"id":"b","input":2}]')

    assert [job.id for job in await link.take(TAKE, busy=False)] == ["b"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[1", b"{}", b"null", b"\xff"])
async def test_a_garbled_answer_is_no_job(service: Any, link: HttpLink, body: bytes) -> None:
    service.script("job-take", body)

    assert list(await link.take(TAKE, busy=False)) == []


async def test_the_statuses_of_errors_are_told_apart(service: Any, link: HttpLink) -> None:
    service.script("job-take", 429, 500, 503, 408, (404, b'{"detail":"no such endpoint"}'))

    with pytest.raises(LinkBusy):
        await link.take(TAKE, busy=False)
    for _ in range(3):
        with pytest.raises(LinkDown) as down:
            await link.take(TAKE, busy=False)
        assert not isinstance(down.value, LinkBusy)
    with pytest.raises(LinkRefused, match=r"404: .*no such endpoint"):
        await link.take(TAKE, busy=False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("7", 7.0),
        ("60", MAX_RETRY_AFTER_S),
        ("61", MAX_RETRY_AFTER_S),
        ("99999999999", MAX_RETRY_AFTER_S),
        pytest.param("9" * 400, MAX_RETRY_AFTER_S, id="400 digits"),
        ("²", 0.0),
        ("٣", 0.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("1e9", 0.0),
        ("inf", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
async def test_a_busy_service_may_delay_a_request_up_to_a_limit(value: str | None, seconds: float) -> None:
    class Busy:
        async def send(self, *_: object) -> Reply:
            return Reply(429, {} if value is None else {"retry-after": value}, b"")

    urls = {"take_url": "http://x/job-take/w", "done_url": "http://x/job-done/w/$ID"}
    link = HttpLink(worker_settings(urls, env={}), Busy())  # type: ignore[arg-type]

    with pytest.raises(LinkBusy) as busy:
        await link.take(TAKE, busy=False)

    assert busy.value.retry_after_s == seconds


async def test_a_cut_connection_is_down(service: Any, link: HttpLink) -> None:
    service.script("job-done", "cut", "cut")

    with pytest.raises(LinkDown):
        await link.finish(JOB, b"{}")


async def test_nobody_listening_is_down(service: Any, link: HttpLink) -> None:
    await service.down()

    with pytest.raises(LinkDown):
        await link.take(TAKE, busy=False)


async def test_a_cancelled_take_leaves_at_once(service: Any, link: HttpLink) -> None:
    task = asyncio.create_task(link.take(TAKE, busy=False))
    await service.requests_to("job-take")

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


# ---------------------------------------------------------------- job-done, job-stream


async def test_a_result_is_sent_as_the_sdk_sends_it(service: Any, link: HttpLink) -> None:
    await link.finish(JOB, '{"output": {"ok": "é"}}'.encode(), is_stream=True)

    [sent] = service.to("job-done")
    assert sent.target == "/v2/ep/job-done/pod-1/job-1-u1?gpu=NVIDIA+RTX+A5000&isStream=true"
    assert sent.json == {"output": {"ok": "é"}}
    assert sent.headers["content-type"] == "application/x-www-form-urlencoded"
    assert sent.headers["charset"] == "utf-8"


async def test_an_outcome_of_another_worker_names_that_worker(service: Any, link: HttpLink) -> None:
    await link.finish(JOB, b"{}", worker_id="pod 0")

    [sent] = service.to("job-done")
    assert sent.target == "/v2/ep/job-done/pod%200/job-1-u1?gpu=NVIDIA+RTX+A5000&isStream=false"


async def test_progress_goes_to_job_done_with_a_status(service: Any, link: HttpLink) -> None:
    await link.report_progress(JOB, b'"half"', 3)

    [sent] = service.to("job-done")
    assert sent.json == {"status": "IN_PROGRESS", "output": "half"}
    assert sent.query["isStream"] == "false"


async def test_a_chunk_goes_to_job_stream(service: Any, link: HttpLink) -> None:
    await link.report_chunks(JOB, 5, [b'{"t":1}'])

    [sent] = service.to("job-stream")
    assert sent.target == "/v2/ep/job-stream/pod-1/job-1-u1?gpu=NVIDIA+RTX+A5000&isStream=false"
    assert sent.json == {"output": {"t": 1}}


async def test_an_id_cannot_leave_its_place_in_the_url(service: Any, link: HttpLink) -> None:
    await link.finish(AttemptRef("../x?y", None), b"{}")

    assert service.to("job-done")[0].target.startswith("/v2/ep/job-done/pod-1/..%2Fx%3Fy?")


# ---------------------------------------------------------------- ping, job-stop


async def test_a_heartbeat_names_the_jobs_that_are_held(service: Any, link: HttpLink) -> None:
    await link.heartbeat([])
    await link.heartbeat(["a1", "a2"])

    none, two = service.to("ping")
    assert none.target == "/v2/ep/ping/pod-1?gpu=NVIDIA+RTX+A5000&runpod_version=1.12.0"
    assert two.target == "/v2/ep/ping/pod-1?gpu=NVIDIA+RTX+A5000&job_id=a1%2Ca2&runpod_version=1.12.0"


async def test_a_service_that_lists_no_leases_takes_none(service: Any, link: HttpLink) -> None:
    service.script("ping", b"", b"pong", b'{"leased":["a"]}')

    assert [await link.heartbeat(["a"]) for _ in range(4)] == [None] * 4


async def test_a_heartbeat_of_many_jobs_is_sent_in_parts(service: Any, link: HttpLink) -> None:
    job_ids = [f"job-{number}-é" for number in range(1000)]

    await link.heartbeat(job_ids)

    parts = service.to("ping")
    assert 1 < len(parts) < 10
    assert max(len(part.target) for part in parts) < 4200
    assert [job_id for part in parts for job_id in part.query["job_id"].split(",")] == job_ids


async def test_stops_come_from_the_job_stop_route(service: Any, link: HttpLink) -> None:
    await service.stop("a", "b")

    assert list(await link.poll_stops()) == [AttemptRef("a", None), AttemptRef("b", None)]
    assert service.to("job-stop")[0].target == "/v2/ep/job-stop/pod-1?gpu=NVIDIA+RTX+A5000"


@pytest.mark.parametrize("answer", [204, b"{}", b'{"jobsToStop":[]}', b'{"jobsToStop":[3,null]}'])
async def test_an_answer_without_ids_stops_nothing(service: Any, link: HttpLink, answer: Any) -> None:
    service.script("job-stop", answer)

    assert list(await link.poll_stops()) == []


async def test_a_stop_may_name_its_attempt(service: Any, link: HttpLink) -> None:
    service.script("job-stop", b'{"jobsToStop":["a","b"],"attempts":[2,1]}', b'{"jobsToStop":["a"],"attempts":[]}')

    assert list(await link.poll_stops()) == [AttemptRef("a", 2), AttemptRef("b", 1)]
    assert list(await link.poll_stops()) == [AttemptRef("a", None)]


async def test_a_take_url_without_its_part_cannot_listen_for_stops(service: Any, make_link: MakeLink) -> None:
    link = make_link(take_url=f"{service.url}/jobs?x=1")

    with pytest.raises(LinkRefused, match="/job-take/"):
        await link.poll_stops()


def test_a_worker_needs_to_know_where_results_go() -> None:
    settings = worker_settings({"take_url": "http://x/job-take/a?"}, env={})

    with pytest.raises(SettingsError, match="RUNPOD_WEBHOOK_POST_OUTPUT"):
        HttpLink(settings, None)


# ---------------------------------------------------------------- extensions


async def test_nothing_is_agreed_with_a_service_that_offers_nothing(service: Any, link: HttpLink) -> None:
    await link.heartbeat([])

    assert link.extensions == frozenset()
    assert link.files_url is None


async def test_what_the_service_offers_is_named_back_in_every_request(service: Any, our_link: HttpLink) -> None:
    await service.add({"id": "a", "input": {}})

    await our_link.take(TAKE, busy=False)
    await our_link.finish(AttemptRef("a", 1), b"{}")
    await our_link.heartbeat(["a"])

    for sent in service.requests[1:]:
        assert sent.headers["x-worker-extensions"].split() == sorted(EXTENSIONS)
    assert our_link.files_url == f"{service.url}/files"


async def test_unknown_extensions_are_not_agreed(agreed: Any, make_link: MakeLink) -> None:
    agreed.extensions = frozenset({"attempt", "teleport"})
    link = make_link()

    await link.heartbeat([])

    assert link.extensions == {"attempt"}


async def test_a_job_carries_attempt_and_times_where_that_is_agreed(service: Any, our_link: HttpLink) -> None:
    await service.add({"id": "a", "input": {}, "attempt": 2, "timeoutMs": 1500, "leaseMs": 40000})

    [job] = await our_link.take(TakeRequest(1, "tok"), busy=False)

    assert (job.attempt, job.timeout_s) == (2, 1.5)
    assert service.to("job-take")[0].headers["x-take-id"] == "tok"


FILLER = b'"' + b"f" * 100_000 + b'"'


@pytest.mark.parametrize(
    "body",
    [
        b'{"attempt":2,"leaseMs":40000,"timeoutMs":1500,"id":"a","input":%b}',
        b'{"attempt":2,"id":"a","input":%b,"leaseMs":40000,"timeoutMs":1500}',
        b'{"input":%b,"attempt":2,"leaseMs":40000,"timeoutMs":1500,"id":"a"}',
        b'{"s3Config":{"id":"b","input":1},"attempt":2,"id":"a","leaseMs":40000,"timeoutMs":1500,"input":%b}',
    ],
)
async def test_a_large_jobs_head_is_found_wherever_it_is(service: Any, our_link: HttpLink, body: bytes) -> None:
    service.script("job-take", body % FILLER)

    [job] = await our_link.take(TAKE, busy=False)

    assert (job.id, job.attempt, job.timeout_s, job.error) == ("a", 2, 1.5, None)
    assert job.body == body % FILLER


async def test_a_large_job_without_an_input_is_known_as_such(service: Any, link: HttpLink) -> None:
    service.script("job-take", b'{"id":"a","output":{"input":%b}}' % FILLER)

    [job] = await link.take(TAKE, busy=False)

    assert job.error is not None


async def test_an_attempt_key_means_nothing_where_nothing_is_agreed(service: Any, link: HttpLink) -> None:
    service.script("job-take", b'{"id":"a","input":1,"attempt":"first","timeoutMs":"soon"}')

    [job] = await link.take(TAKE, busy=False)

    assert (job.attempt, job.timeout_s, job.error) == (None, None, None)


async def test_reports_carry_the_attempt(service: Any, our_link: HttpLink) -> None:
    await our_link.finish(AttemptRef("a", 2), b"{}")
    await our_link.report_progress(AttemptRef("a", 2), b"1", 7)
    await our_link.report_chunks(AttemptRef("a", 2), 4, [b"1", b'"x"'])

    done, progress = service.to("job-done")
    [chunks] = service.to("job-stream")
    assert {request.headers["x-attempt"] for request in (done, progress, chunks)} == {"2"}
    assert progress.json == {"status": "IN_PROGRESS", "output": 1, "seq": 7}
    assert chunks.json == {"outputs": [1, "x"], "index": 4}


async def test_a_result_may_bring_the_next_jobs(service: Any, our_link: HttpLink) -> None:
    await service.add({"id": "b", "input": 1, "attempt": 1})

    answer = await our_link.finish(AttemptRef("a", 1), b"{}", take=TakeRequest(2, "tok"))

    assert [job.id for job in answer.jobs] == ["b"]
    headers = service.to("job-done")[0].headers
    assert (headers["x-take"], headers["x-take-id"]) == ("2", "tok")


async def test_a_stale_attempt_is_told(service: Any, our_link: HttpLink) -> None:
    service.stale.add("a")

    assert (await our_link.finish(AttemptRef("a", 1), b"{}")).stale
    assert (await our_link.report_chunks(AttemptRef("a", 1), 0, [b"1"])).stale


async def test_release_sends_takes_and_attempts(service: Any, our_link: HttpLink) -> None:
    await our_link.release(["t1"], [AttemptRef("a", 3)])

    [sent] = service.to("job-return")
    assert sent.target == "/v2/ep/job-return/pod-1"
    assert json.loads(sent.body) == {"takes": ["t1"], "jobs": [{"id": "a", "attempt": 3}]}


async def test_a_file_is_stored_under_its_token(service: Any, our_link: HttpLink) -> None:
    await our_link.store_file("a", "tok", "my pic.png", "image/png", b"PNG")

    [sent] = service.to("files")
    assert (sent.method, sent.target, sent.body) == ("PUT", "/v2/ep/files/a/tok/my%20pic.png", b"PNG")
    assert sent.headers["content-type"] == "image/png"


async def test_a_service_that_forgot_its_extensions_is_spoken_to_plainly(service: Any, our_link: HttpLink) -> None:
    service.extensions = frozenset()

    await our_link.heartbeat([])
    await our_link.finish(AttemptRef("a", 1), b"{}")

    assert "x-attempt" not in service.to("job-done")[0].headers


@pytest.mark.parametrize("body", [b"[" * 5000, b'{"id":"a","input":%s}' % (b"[" * 600 + b"]" * 600)], ids=len)
async def test_a_reply_nested_too_deep_is_down(service: Any, link: HttpLink, body: bytes) -> None:
    service.script("job-take", body)

    with pytest.raises(LinkDown, match="at most 512 levels"):
        await link.take(TAKE, busy=False)
