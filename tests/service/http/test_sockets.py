"""What service/http/requests.py and sockets.py rely on in aiohttp, and how replies look on the wire.

If a new aiohttp fails here, they have to be adapted before it can be used.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from runpod_worker.core.errors import BadRequest
from runpod_worker.service.http import requests, sockets
from runpod_worker.service.http.replies import Answer, FileReply, Reply, StreamReply, json_reply
from runpod_worker.service.http.requests import Request
from runpod_worker.service.http.sockets import MAX_JOINED_BYTES, DisconnectServer

WAIT_S = 20.0
USED = {
    web.BaseRequest: "ATTRS clone content content_length headers host keep_alive method path protocol raw_path read "
    "rel_url scheme transport version writer",
    web.FileResponse: "prepare",
    web.Server: "connection_lost connection_made connections",
    RequestHandler: "finish_response",
}


def test_aiohttp_has_every_name_that_is_used() -> None:
    missing = [
        f"{kind.__name__}.{name}" for kind, names in USED.items() for name in names.split() if name not in dir(kind)
    ]

    assert missing == [], f"aiohttp {aiohttp.__version__} lacks these: adapt runpod_worker/service/http"


class StubApp:
    """Answers every request as the test says."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Callable[[Request], Awaitable[Answer]] = self.echo

    async def handle(self, request: Request) -> Answer:
        self.requests.append(request)
        return await self.answer(request)

    async def echo(self, request: Request) -> Answer:
        return json_reply(await request.read_body(2**24))


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
def app() -> StubApp:
    return StubApp()


@pytest.fixture
async def connect(app: StubApp) -> AsyncIterator[Connect]:
    runner = web.ServerRunner(DisconnectServer(app, body_limit=2**24))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    writers: list[asyncio.StreamWriter] = []

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port, limit=2**24)
        writers.append(writer)
        return reader, writer

    async with asyncio.timeout(WAIT_S):
        yield opened
        for writer in writers:
            writer.close()
        await runner.cleanup()


async def head_of(reader: asyncio.StreamReader) -> list[str]:
    return (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]


@pytest.mark.parametrize(
    ("request_line", "connection", "expected"),
    [
        ("GET /a HTTP/1.1", None, None),
        ("GET /a HTTP/1.1", "close", "Connection: close"),
        ("GET /a HTTP/1.0", "keep-alive", "Connection: keep-alive"),
        ("GET /a HTTP/1.0", None, None),
    ],
)
async def test_a_whole_reply_has_its_length_and_names_what_becomes_of_the_connection(
    connect: Connect, request_line: str, connection: str | None, expected: str | None
) -> None:
    reader, writer = await connect()
    header = f"Connection: {connection}\r\n" if connection else ""
    writer.write(f"{request_line}\r\nHost: h\r\n{header}Content-Length: 2\r\n\r\n{{}}".encode())

    head = await head_of(reader)

    assert head[0] == "HTTP/1.1 200 OK"
    assert head[1:3] == ["Content-Type: application/json", "Content-Length: 2"]
    assert [line for line in head if line.startswith("Connection")] == ([expected] if expected else [])
    assert await reader.readexactly(2) == b"{}"
    if connection == "close" or (connection is None and "1.0" in request_line):
        assert await reader.read() == b""


async def test_a_connection_serves_one_request_after_the_other(app: StubApp, connect: Connect) -> None:
    reader, writer = await connect()

    for size in (1, MAX_JOINED_BYTES - 1, MAX_JOINED_BYTES, 2**21):
        writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        head = await head_of(reader)
        assert f"Content-Length: {size}" in head
        assert await reader.readexactly(size) == b"x" * size

    assert len(app.requests) == 4


async def test_head_gets_no_body_and_204_has_no_length(app: StubApp, connect: Connect) -> None:
    async def by_method(request: Request) -> Answer:
        return Reply(200, b"", b"four") if request.method == "HEAD" else Reply(204, b"", b"")

    app.answer = by_method
    reader, writer = await connect()

    writer.write(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n")

    assert "Content-Length: 4" in await head_of(reader)
    second = await head_of(reader)
    assert second[0] == "HTTP/1.1 204 No Content"
    assert not [line for line in second if line.startswith("Content-Length")]


async def test_a_request_has_its_target_and_origin(app: StubApp, connect: Connect) -> None:
    reader, writer = await connect()

    writer.write(b"GET /v2/a%2Fb/run?x=%20 HTTP/1.1\r\nHost: example.org:81\r\n\r\n")
    await head_of(reader)
    writer.write(b"GET http://other.org/v2/ep/run?x=1 HTTP/1.1\r\nHost: other.org\r\n\r\n")
    await head_of(reader)

    assert [request.target for request in app.requests] == ["/v2/a%2Fb/run?x=%20", "/v2/ep/run?x=1"]
    assert app.requests[0].origin == "http://example.org:81"
    assert app.requests[0].headers.get("HOST") == "example.org:81"


async def test_a_client_that_asks_first_is_told_to_send_its_body(connect: Connect) -> None:
    reader, writer = await connect()

    writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert (await head_of(reader))[0] == "HTTP/1.1 100 Continue"
    writer.write(b"{}")

    assert (await head_of(reader))[0] == "HTTP/1.1 200 OK"


async def test_a_stream_is_sent_piece_by_piece(app: StubApp, connect: Connect) -> None:
    first_read = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await first_read.wait()
        yield b"second"

    async def stream(request: Request) -> Answer:
        return StreamReply({"Content-Type": "text/plain"}, pieces())

    app.answer = stream
    reader, writer = await connect()

    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "Transfer-Encoding: chunked" in await head_of(reader)
    assert await reader.readuntil(b"first\r\n") == b"5\r\nfirst\r\n"
    first_read.set()

    assert await reader.readuntil(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


async def test_hanging_up_ends_a_stream_at_once_and_reports_it_lost(app: StubApp, connect: Connect) -> None:
    events: asyncio.Queue[str] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            events.put_nowait("ended")

    async def on_lost() -> None:
        events.put_nowait("lost")

    async def stream(request: Request) -> Answer:
        return StreamReply({}, pieces(), on_lost=on_lost)

    app.answer = stream
    reader, writer = await connect()
    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    await reader.readuntil(b"first\r\n")

    writer.close()

    assert [await events.get(), await events.get()] == ["ended", "lost"]


async def test_a_stream_that_breaks_closes_the_connection(
    app: StubApp, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise ValueError("broken")

    async def stream(request: Request) -> Answer:
        return StreamReply({}, pieces())

    app.answer = stream
    reader, writer = await connect()
    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")

    assert (await reader.read()).endswith(b"first\r\n")
    assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == ["request.failed"]


async def test_a_reply_to_a_caller_that_has_hung_up_is_reported_lost(app: StubApp, connect: Connect) -> None:
    lost = asyncio.Event()

    async def on_lost() -> None:
        lost.set()

    async def late(request: Request) -> Answer:
        await request.wait_gone()
        assert request.is_gone
        return json_reply(b"{}", on_lost=on_lost)

    app.answer = late
    _, writer = await connect()
    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    while not app.requests:
        await asyncio.sleep(0)

    writer.close()

    await lost.wait()


async def test_a_file_is_sent_whole_or_in_part(app: StubApp, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")

    async def file(request: Request) -> Answer:
        return FileReply({"Content-Type": "text/plain"}, path)

    app.answer = file
    reader, writer = await connect()

    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "Content-Length: 10" in await head_of(reader)
    assert await reader.readexactly(10) == b"0123456789"
    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\n\r\n")
    assert (await head_of(reader))[0] == "HTTP/1.1 206 Partial Content"
    assert await reader.readexactly(3) == b"234"


async def test_a_client_that_leaves_within_a_refused_body_keeps_no_task_waiting(app: StubApp, connect: Connect) -> None:
    async def refuse(_: Request) -> Answer:
        return Reply(413, b"", b"")

    app.answer = refuse
    reader, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nonly the beginning")
    assert b"413" in await reader.readline()
    [answering] = [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]

    writer.close()

    await asyncio.wait_for(answering, WAIT_S / 4)
    assert answering.done()


async def test_a_connection_that_sends_no_request_is_closed(
    app: StubApp, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HEAD_TIMEOUT_S", 0.05)

    for begin in (b"", b"GET / HTTP/1.1\r\nHost:"):
        reader, writer = await connect()
        writer.write(begin)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    assert app.requests == []


async def test_a_body_that_stops_is_refused(app: StubApp, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BODY_SILENCE_S", 0.05)
    refused = asyncio.get_running_loop().create_future()

    async def read(request: Request) -> Answer:
        with pytest.raises(BadRequest) as caught:
            await request.read_body(100)
        refused.set_result(str(caught.value))
        return Reply(400, b"", b"")

    app.answer = read
    _, writer = await connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")

    assert await refused == "body: no byte arrived for 0.05 s"


async def test_over_the_limit_the_oldest_connection_without_a_request_is_closed(app: StubApp) -> None:
    runner = web.ServerRunner(DisconnectServer(app, body_limit=9, max_connections=3))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        ends = []
        for number in range(22):
            ends.append(await asyncio.open_connection(host, port))
            stack.push_async_callback(close, ends[-1][1])
            if number == 0:
                ends[0][1].write(request)
                await head_of(ends[0][0])
        ends[-1][1].write(request)
        assert (await head_of(ends[-1][0]))[0] == "HTTP/1.1 200 OK"
        ends[0][1].write(request)
        assert (await head_of(ends[0][0]))[0] == "HTTP/1.1 200 OK", "a connection that was used stays"
        with contextlib.suppress(ConnectionResetError):
            assert await ends[1][0].read() == b""


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
