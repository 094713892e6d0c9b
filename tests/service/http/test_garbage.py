"""Bytes that are no HTTP, half requests, connections that break: nothing of it may disturb the service or its log."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JSON = "Content-Type: application/json"


async def exchange(url: str, data: bytes) -> bytes:
    """The first reply to these bytes; nothing if the service hangs up."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            return head + (await reader.readexactly(int(length[1])) if length else b"")
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"POST /v2/ep/job-return/w HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (post("/v2/ep/run", b"abcde", "Content-Encoding: gzip", JSON), b"400"),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET /v2/ep/run?a=%zz&b HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"GET /v2/e%0d%0aX-Evil:%201/ping/w HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET http://elsewhere/v2/ep/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET /v2/ep/health HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /v2/ep/ping/%ff%0a?job_id=%ff%0a HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /v2/ep/status/\xff HTTP/1.0\r\n\r\n", b"400"),
        (b"GET /v2/ep/job-take/w HTTP/1.0\r\nX-Take-Id: \xff\r\n\r\n", b"400"),
        (b"GET /v2/ep/health HTTP/1.0\r\nHost: \xff\r\n\r\n", b"403"),
        (b"GET /v2/ep/health HTTP/1.0\r\nOrigin: http://\xff\r\n\r\n", b"403"),
    ],
)
async def test_a_wrong_request_is_answered_and_not_logged_as_our_error(running, caplog, data, status):
    answer = await exchange(running.server.url, data)

    assert answer[9:12] == status
    assert b"X-Evil" not in answer.split(b"\r\n\r\n")[0]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_reply_to_head_has_no_body(running):
    two = b"HEAD /v2/ep/x HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v2/ep/health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    answer = await exchange(running.server.url, two)

    assert b"404 Not Found" in answer
    assert b"HTTP/1.1 200 OK" in answer.split(b"\r\n\r\n")[1]


async def test_half_a_body_makes_no_job_and_no_error(running, api, caplog):
    host, port = running.server.url.removeprefix("http://").split(":")
    for data in (post("/v2/ep/run", b'{"input": 1}', JSON, length=100), post("/v2/ep/runsync", b"", JSON, length=5)):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert (await api.get("/health")).json["jobs"]["inQueue"] == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
    verb=st.sampled_from(["run", "runsync", "status", "job-take", "job-done", "ping", "stream", "files", "job-return"]),
    body=st.binary(max_size=40),
)
def test_no_request_is_answered_with_500(path, verb, body):
    async def try_it() -> None:
        from runpod_worker.service.server import Server, open_stores
        from runpod_worker.service.settings import ServiceSettings

        short = ServiceSettings(
            port=0, take_poll_timeout_s=0.01, runsync_poll_timeout_s=0.01, stream_poll_timeout_s=0.01
        )
        server = Server(short, open_stores(short))
        await server.start()
        try:
            for method in (b"GET", b"POST"):
                line = b"%s /v2/ep/%s/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                answer = await exchange(server.url, line % (method, verb.encode(), path.encode(), len(body)) + body)
                assert answer[9:12] in (b"200", b"204", b"400", b"404", b"405", b"415", b""), answer
        finally:
            await server.close()

    asyncio.run(try_it())
