"""HTTP/1.1 as the link needs it, against servers that send the bytes of a test."""

import asyncio
import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.errors import LinkDown
from runpod_worker.worker.link import transport as transport_module
from runpod_worker.worker.link.transport import HttpTransport, _ReplyReader

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: a: b\r\n\r\nhi"
Serve = Callable[..., Awaitable[str]]


class Server:
    """Sends the next answer for each request it has read; `heads` are the heads it read."""

    def __init__(self, answers: list[bytes], *, close: bool = False) -> None:
        self.answers = answers
        self.close = close
        self.heads: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if not self.answers:
                    await reader.read()
                    break
                writer.write(self.answers.pop(0))
                await writer.drain()
                if self.close:
                    break
        writer.close()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport()
    yield made
    await made.close()


@pytest.fixture
async def serve(transport: HttpTransport) -> AsyncIterator[Serve]:
    listening, talks = [], set()

    async def start(server: Server, tls: ssl.SSLContext | None = None) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            talks.add(asyncio.current_task())
            await server(reader, writer)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

        listening.append(await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls))
        scheme = "https" if tls else "http"
        return f"{scheme}://127.0.0.1:{listening[-1].sockets[0].getsockname()[1]}/path?x=1"

    yield start
    await transport.close()
    for server in listening:
        server.close()
    await asyncio.gather(*talks)


async def test_an_answer_is_read_and_the_connection_kept(transport: HttpTransport, serve: Serve) -> None:
    server = Server([OK, OK])
    url = await serve(server)

    first = await transport.send("GET", url, {"A": "1"}, None, 10)
    await transport.send("POST", url, {}, b"body", 10)

    assert (first.status, first.body, first.headers["x-thing"]) == (200, b"hi", "a: b")
    assert server.connections == 1
    assert server.heads[0].startswith(b"GET /path?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nA: 1\r\n\r\n" in server.heads[0]
    assert b"\r\nContent-Length: 4\r\n\r\n" in server.heads[1]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_every_way_to_end_a_body_keeps_the_connection(
    transport: HttpTransport, serve: Serve, answer: bytes, body: bytes
) -> None:
    server = Server([answer, OK])
    url = await serve(server)

    assert (await transport.send("GET", url, {}, None, 10)).body == body
    assert (await transport.send("GET", url, {}, None, 10)).body == b"hi"
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ],
)
async def test_a_connection_that_is_closed_is_not_used_again(
    transport: HttpTransport, serve: Serve, answer: bytes
) -> None:
    server = Server([answer, answer], close=True)
    url = await serve(server)

    assert (await transport.send("GET", url, {}, None, 10)).body == b"hi"
    assert (await transport.send("GET", url, {}, None, 10)).body == b"hi"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
    ],
)
async def test_half_an_answer_and_garbage_are_down(transport: HttpTransport, serve: Serve, answer: bytes) -> None:
    url = await serve(Server([answer], close=True))

    with pytest.raises(LinkDown):
        await transport.send("GET", url, {}, None, 10)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-6\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: -6\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\x00\x01",
        b"\x00" * 200,
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"1" * 100_000,
    ],
)
async def test_a_reply_that_breaks_the_rules_is_down_at_once(
    transport: HttpTransport, serve: Serve, reply: bytes
) -> None:
    url = await serve(Server([reply]))

    with pytest.raises(LinkDown, match=r"is not HTTP/1\.1: \S+"):
        await transport.send("GET", url, {}, None, 60)


async def test_a_reply_that_never_ends_is_down_at_its_limit(
    transport: HttpTransport, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runpod_worker.worker.link.transport.MAX_REPLY_BYTES", 100_000)
    url = await serve(Server([b"HTTP/1.1 200 OK\r\n\r\n" + bytes(200_000)]))

    with pytest.raises(LinkDown, match="a reply of more than 100000 bytes"):
        await transport.send("GET", url, {}, None, 60)


async def test_no_answer_in_time_is_down(transport: HttpTransport, serve: Serve) -> None:
    url = await serve(Server([]))

    with pytest.raises(LinkDown, match="no reply within"):
        await transport.send("GET", url, {}, None, 0.05)


async def test_a_cancelled_request_closes_its_connection(transport: HttpTransport, serve: Serve) -> None:
    server = Server([])
    url = await serve(server)
    request = asyncio.create_task(transport.send("GET", url, {}, None, 10))
    while not server.heads:
        await asyncio.sleep(0.001)

    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    server.answers = [OK]

    assert (await transport.send("GET", url, {}, None, 10)).status == 200
    assert server.connections == 2


async def test_large_bodies_travel_both_ways(transport: HttpTransport, serve: Serve) -> None:
    size = 3_000_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        await writer.drain()
        writer.close()

    url = await serve(echo)
    body = bytes(range(250)) * (size // 250)

    assert (await transport.send("POST", url, {}, body, 30)).body == body


async def test_a_large_body_waits_for_whoever_reads_late_and_arrives_whole(
    transport: HttpTransport, serve: Serve
) -> None:
    body, slow = bytes(range(256)) * (20 * 4096), asyncio.Event()
    got: list[bytes] = []

    async def reads_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await slow.wait()
        got.append(await reader.readexactly(len(body)))
        writer.write(OK)
        writer.close()

    url = await serve(reads_late)
    sending = asyncio.create_task(transport.send("POST", url, {}, body, 30))
    slow.set()

    assert (await sending).status == 200
    assert got == [body]


async def test_an_answer_that_comes_before_the_end_of_an_upload_ends_it(transport: HttpTransport, serve: Serve) -> None:
    answers = [b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", OK]
    kept = asyncio.Event()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        await writer.drain()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(kept.wait(), 30)
        writer.close()

    url = await serve(refuses)

    assert (await transport.send("POST", url, {}, bytes(20_000_000), 30)).status == 413
    assert (await transport.send("POST", url, {}, b"small", 30)).status == 200
    kept.set()


async def test_a_header_cannot_bring_another_one(transport: HttpTransport, serve: Serve) -> None:
    url = await serve(Server([OK]))

    with pytest.raises(ValueError, match="line break"):
        await transport.send("PUT", url, {"Content-Type": "a\r\nX: 1"}, b"", 10)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
async def test_an_unknown_certificate_is_not_talked_to(transport: HttpTransport, serve: Serve, tmp_path: Path) -> None:
    url = await serve(Server([OK]), tls=certificate(tmp_path))

    with pytest.raises(LinkDown, match=r"(?i)certificate"):
        await transport.send("GET", url, {}, None, 10)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
async def test_https_works_with_a_trusted_certificate(
    transport: HttpTransport, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server([OK, OK])
    url = await serve(server, tls=certificate(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    assert (await transport.send("GET", url, {}, None, 10)).body == b"hi"
    assert (await transport.send("GET", url, {}, None, 10)).body == b"hi"
    assert server.connections == 1


def certificate(folder: Path) -> ssl.SSLContext:
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True, timeout=60
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
)


@given(st.sampled_from([OK, CHUNKED]), st.lists(st.integers(1, 200), max_size=20))
def test_an_answer_may_come_in_any_pieces(answer: bytes, cuts: list[int]) -> None:
    bounds = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    reader, reply = _ReplyReader(), None

    for start, end in itertools.pairwise(bounds):
        assert reply is None
        reply = reader.feed(answer[start:end])

    assert reply is not None
    assert reply.body == (b"hi" if answer is OK else b"abc0123456789abcdef")


async def test_a_connection_that_is_not_accepted_is_named(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT_S", 0.2)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(4):  # the queue of connections that wait to be accepted is full after the first ones
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)

        with pytest.raises(LinkDown, match=r"no connection within 0\.2 s"):
            await transport.send("GET", f"http://127.0.0.1:{address[1]}/", {}, None, 95.0)
