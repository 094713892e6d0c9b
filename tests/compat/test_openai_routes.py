"""The OpenAI routes of a service on loopback, with a worker played by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.job import Job, Status
from runpod_worker.service.http import openai_replies as openai
from runpod_worker.service.http import wire
from runpod_worker.service.keys import DATABASE, KeyFile
from runpod_worker.service.server import Server, Stores, open_stores
from runpod_worker.service.settings import ServiceSettings

TIMEOUT_S = 30.0
CHAT = "/openai/v1/chat/completions"


class Played:
    """A service, and both its ends played by the test."""

    def __init__(self, server: Server, stores: Stores, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.stores = stores
        self.session = session
        self.base = f"{server.url}/v2/ep"

    def ask(self, path: str = CHAT, body: Any = None, **more: Any) -> asyncio.Task[tuple[int, str, bytes]]:
        """Send an OpenAI request; status, content type and body of the reply."""

        async def reply() -> tuple[int, str, bytes]:
            method = "GET" if body is None else "POST"
            async with self.session.request(method, self.base + path, json=body, **more) as response:
                return response.status, response.content_type, await response.read()

        return asyncio.create_task(reply())

    async def take(self, worker: str = "pod") -> Any:
        async with self.session.get(f"{self.base}/job-take/{worker}?gpu=A&job_in_progress=0") as response:
            return await response.json() if response.status == 200 else None

    async def chunk(self, job: Any, value: Any, worker: str = "pod") -> None:
        await self._post(f"job-stream/{worker}/{job['id']}?gpu=A&isStream=false", {"output": value})

    async def done(self, job: Any, body: Any, *, stream: bool = False, worker: str = "pod") -> None:
        await self._post(f"job-done/{worker}/{job['id']}?gpu=A&isStream={str(stream).lower()}", body)

    async def _post(self, path: str, body: Any) -> None:
        async with self.session.post(f"{self.base}/{path}", data=json.dumps(body)) as response:
            assert response.status == 200, await response.text()

    async def status(self, job: Any) -> Any:
        async with self.session.get(f"{self.base}/status/{job['id']}") as response:
            return await response.json()

    async def ended(self, job: Any) -> Any:
        async with self.session.get(f"{self.base}/status-sync/{job['id']}?wait=20000") as response:
            return await response.json()


@contextlib.asynccontextmanager
async def played(**given: Any) -> AsyncIterator[Played]:
    settings = ServiceSettings(port=0, **given)
    stores = open_stores(settings)
    server = Server(settings, stores)
    await server.start()
    try:
        async with asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession() as session:
            yield Played(server, stores, session)
    finally:
        await server.close()


@pytest.fixture
async def site() -> AsyncIterator[Played]:
    async with played() as site:
        yield site


def error(reply: tuple[int, str, bytes]) -> tuple[int, dict[str, Any]]:
    reported = json.loads(reply[2])["error"]
    assert set(reported) == {"message", "type", "param", "code"}
    return reply[0], reported


async def test_a_request_becomes_a_job_with_its_route_and_body(site: Played) -> None:
    request = site.ask(body={"model": "m", "messages": [{"role": "user", "content": "grüß"}], "seed": 2**60})

    job = await site.take()
    await site.done(job, {"output": [{"id": "x"}]}, stream=True)

    assert job["input"] == {
        "openai_route": "/v1/chat/completions",
        "openai_input": {"model": "m", "messages": [{"role": "user", "content": "grüß"}], "seed": 2**60},
    }
    assert await request == (200, "application/json", b'{"id": "x"}')


async def test_a_request_without_a_body_is_its_route_alone(site: Played) -> None:
    request = site.ask("/openai/v1/models/org%2Fname")

    job = await site.take()
    await site.done(job, {"output": {"object": "list"}})

    assert job["input"] == {"openai_route": "/v1/models/org/name"}
    assert (await request)[2] == b'{"object": "list"}'


@pytest.mark.parametrize("aggregated", [True, False])
async def test_the_one_thing_a_generator_yields_is_the_body(site: Played, aggregated: bool) -> None:
    request = site.ask(body={"stream": False})
    job = await site.take()

    await site.chunk(job, {"choices": [1]})
    await site.done(job, {"output": [{"choices": [1]}] if aggregated else []}, stream=True)

    assert await request == (200, "application/json", b'{"choices": [1]}')


async def test_text_that_is_json_is_sent_as_json_and_other_text_as_text(site: Played) -> None:
    for output, kind, content in (
        ('{"a":1}', "application/json", b'{"a":1}'),
        ("WEBVTT", "text/plain", b"WEBVTT"),
        (["data: 1\n\n", "data: 2\n\n"], "text/event-stream", b"data: 1\n\ndata: 2\n\n"),
    ):
        request = site.ask(body={})
        await site.done(await site.take(), {"output": output})
        assert await request == (200, kind, content)


async def test_a_stream_is_passed_through_byte_for_byte_as_it_comes(site: Played) -> None:
    pieces = ["data: {", '"a": "ü', "😀", '"}\n\n', ": note\r\n\n", "data: [DONE]\n\n"]
    sending = asyncio.create_task(site.session.post(site.base + CHAT, json={"stream": True}))
    job = await site.take()
    received = b""
    await site.chunk(job, pieces[0])
    async with await sending as response:
        received += await response.content.readany()
        assert (response.status, response.content_type, received) == (200, "text/event-stream", b"data: {")

        for piece in pieces[1:]:
            await site.chunk(job, piece)
            received += await response.content.readany()
        await site.done(job, {"output": pieces}, stream=True)
        received += await response.content.read()

    assert received == "".join(pieces).encode()


async def test_json_that_a_stream_yields_becomes_events(site: Played) -> None:
    request = site.ask(body={"stream": True})
    job = await site.take()

    await site.chunk(job, {"a": 1})
    await site.done(job, {"output": []}, stream=True)

    assert (await request)[2] == b'data: {"a": 1}\n\n'


async def test_a_stream_without_chunks_is_what_the_handler_returned(site: Played) -> None:
    request = site.ask(body={"stream": True})

    await site.done(await site.take(), {"output": "data: 1\n\n"})

    assert await request == (200, "text/event-stream", b"data: 1\n\n")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("reported", "status", "message", "kind", "code"),
    [
        ('{"message": "no", "type": "BadRequestError", "code": 400}', 400, "no", "BadRequestError", 400),
        ("{'message': \"it's\", 'type': 'x', 'code': 'too_long'}", 500, "it's", "x", "too_long"),
        ("{'message': 'busy', 'type': 'rate_limit_error', 'code': None}", 429, "busy", "rate_limit_error", None),
        ('{"error": {"message": "m", "type": "t", "status": 422}}', 422, "m", "t", None),
        ('{"error_type": "<class \'ValueError\'>", "error_message": "b", "error_traceback": "secret"}', 500,
         "ValueError: b", "worker_error", None),
        ("handler: oh \ntraceback: secret", 500, "oh", "worker_error", None),
        ("{broken", 500, "{broken", "worker_error", None),
        ("executionTimeout exceeded", 504, "executionTimeout exceeded", "timeout_error", None),
    ],
)  # fmt: skip
async def test_a_failed_job_is_an_error_in_the_shape_of_openai(
    site: Played, stream: bool, reported: str, status: int, message: str, kind: str, code: Any
) -> None:
    request = site.ask(body={"stream": stream})

    await site.done(await site.take(), {"error": reported})

    got, fields = error(await request)
    assert (got, fields["message"], fields["type"], fields["code"]) == (status, message, kind, code)


async def test_an_error_in_the_output_has_its_status(site: Played) -> None:
    for output, status in (
        ({"object": "error", "message": "m", "code": 404}, 404),
        ([{"object": "error", "code": 400}], 400),
        ({"code": 404}, 200),
    ):
        request = site.ask(body={})
        await site.done(await site.take(), {"output": output})
        assert (await request)[0] == status


VLLM_ERROR = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}


@pytest.mark.parametrize("value", [VLLM_ERROR, {"error": VLLM_ERROR}])
@pytest.mark.parametrize("yielded", [True, False])
async def test_an_error_object_in_place_of_a_stream_has_its_status(site: Played, value: Any, yielded: bool) -> None:
    reply = site.ask(body={"stream": True})
    job = await site.take()
    if yielded:
        await site.chunk(job, value)
    else:
        await site.done(job, {"output": value})

    assert error(await reply) == (400, {"message": "too long", "type": "BadRequestError", "param": None, "code": 400})


async def test_an_error_object_within_a_stream_is_an_error_event(site: Played) -> None:
    reply = site.ask(body={"stream": True})
    job = await site.take()
    await site.chunk(job, "data: 1\n\n")
    await site.chunk(job, VLLM_ERROR)
    await site.done(job, {"output": []}, stream=True)

    status, _, content = await reply
    assert status == 200
    assert json.loads(content.partition(b"\n\ndata: ")[2])["error"]["message"] == "too long"


async def test_a_stream_of_a_job_without_output_is_an_error(site: Played) -> None:
    reply = site.ask(body={"stream": True})
    await site.done(await site.take(), {}, stream=True)

    assert error(await reply)[0] == 500


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(site: Played) -> None:
    request = site.ask(body={"stream": True})
    job = await site.take()

    await site.chunk(job, "data: 1\n\n")
    await site.done(job, {"error": "broke"}, stream=True)

    status, _, content = await request
    first, last = content.split(b"\n\n")[:2]
    assert (status, first) == (200, b"data: 1")
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "broke"


async def test_a_lost_worker_ends_the_stream_that_it_had_begun() -> None:
    async with played(lease_s=0.4) as site:
        request = site.ask(body={"stream": True})
        job = await site.take()
        await site.chunk(job, "data: 1\n\n")

        again = await site.take("other")
        assert again["id"] == job["id"]
        await site.chunk(again, "data: from the start\n\n", "other")

        content = (await request)[2]
        assert b"from the start" not in content
        assert b"the worker was lost in the middle" in content
        assert (await site.ended(job))["status"] == "CANCELLED"


async def test_a_worker_lost_before_its_first_chunk_is_replaced_unseen() -> None:
    async with played(lease_s=0.4) as site:
        request = site.ask(body={"stream": True})
        await site.take()

        again = await site.take("other")
        await site.chunk(again, "data: 1\n\n", "other")
        await site.done(again, {"output": []}, stream=True, worker="other")

        assert (await request)[2] == b"data: 1\n\n"


@pytest.mark.parametrize("body", [{"stream": True}, {"stream": False}])
async def test_who_hangs_up_cancels_the_job(site: Played, body: Any) -> None:
    request = site.ask(body=body)
    job = await site.take()
    if body["stream"]:
        await site.chunk(job, "data: 1\n\n")

    request.cancel()

    assert (await site.ended(job))["status"] == "CANCELLED"
    async with site.session.get(f"{site.base}/job-stop/pod?gpu=A") as response:
        assert await response.json() == {"jobsToStop": [job["id"]]}


async def test_who_hangs_up_in_the_queue_leaves_nothing_behind(site: Played) -> None:
    request = site.ask(body={})
    while not site.server.queue.jobs.index.counts("ep").in_queue:
        await asyncio.sleep(0)
    request.cancel()
    while site.server.queue.jobs.index.counts("ep").in_queue:
        await asyncio.sleep(0)
    later = site.ask(body={"second": True})

    job = await site.take()
    await site.done(job, {"output": "x"})

    assert job["input"]["openai_input"] == {"second": True}
    assert (await later)[0] == 200


async def test_a_long_silence_does_not_look_like_a_dead_connection() -> None:
    async with played(keepalive_s=0.1) as site:
        streamed, whole = site.ask(body={"stream": True}), site.ask(body={"stream": False})
        jobs = [await site.take(), await site.take()]
        quiet = asyncio.create_task(site.session.post(site.base + CHAT, json={"stream": True}))
        async with await quiet as response:  # begins without any chunk
            assert (await response.content.readany()).startswith(b": ")
        for job in jobs:
            await site.chunk(job, {"a": 1})
            await site.done(job, {"output": []}, stream=True)

        assert (await streamed)[2].endswith(b'data: {"a": 1}\n\n')
        assert json.loads((await whole)[2]) == {"a": 1}


async def test_a_closing_service_tells_who_waits() -> None:
    async with played() as site:
        whole = site.ask(body={"stream": False})
        await site.take()
        streamed = site.ask(body={"stream": True})
        begun = await site.take()
        await site.chunk(begun, "data: 1\n\n")
        site.server.queue.drain()

        assert error(await whole)[0] == 503
        assert b"the service is going down" in (await streamed)[2]


async def test_refusals_have_the_shape_of_openai_too(tmp_path: Path) -> None:
    with contextlib.closing(KeyFile(tmp_path / DATABASE)) as keys:
        account = keys.ensure_account("a")
        keys.add_endpoint(account, "ep")
        keys.add_key(account, "k")
    async with played(data=tmp_path) as site:
        key: dict[str, Any] = {"headers": {"Authorization": "Bearer k"}}

        assert error(await site.ask(body={}))[0] == 401
        assert error(await site.ask(body={}))[1]["code"] == "invalid_api_key"
        assert error(await site.ask(body=[1], **key))[0] == 400
        assert error(await site.ask("/openai/v1/files", body=None, data=b"--x", **key))[0] == 400
        async with site.session.put(site.base + CHAT, **key) as response:
            assert response.status == 405
            assert "error" in await response.json()


def test_half_a_surrogate_pair_does_not_break_a_stream() -> None:
    chunks, _ = wire.parse_chunks(rb'{"output": "a\ud83d b"}')

    assert [openai.event(chunk) for chunk in chunks] == ["a\ufffd b".encode()]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | st.builds(repr, JSON) | JSON.map(json.dumps))
def test_any_error_of_a_job_has_a_status_and_the_shape_of_openai(reported: str) -> None:
    job = Job(id="j", endpoint="ep", created_at=0, queued_at=0, status=Status.FAILED, error=reported)

    reply = openai.ended_badly(job)

    fields = json.loads(reply.content)["error"]
    assert 400 <= reply.status < 600
    assert set(fields) == {"message", "type", "param", "code"}
    assert fields["message"]


@given(st.lists(JSON, max_size=4))
def test_any_output_makes_a_reply(values: list[Any]) -> None:
    chunks = [json.dumps(value).encode() for value in values]

    reply = openai.whole(openai.pieces(b"[" + b",".join(chunks) + b"]"))

    assert 200 <= reply.status < 600
    assert reply.head.startswith(b"Content-Type: ")
    assert isinstance(reply.content, bytes)
    assert b"".join(openai.event(chunk) for chunk in chunks) is not None
