"""The blocking client's connections: persistent, shared by threads, never reused after half an exchange."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import runpod_worker
from runpod_worker.client.access import proxy_for
from runpod_worker.client.connections import MAX_IDLE_S, Connections
from runpod_worker.client.exchange import NoReply, NotSent, Request
from runpod_worker.core.errors import LinkDown

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"
"""A key and a self-signed certificate for localhost, made for these tests."""

GET = Request(method="GET", path="ep/health", timeout_s=20)
Talk = Callable[[socket.socket], None]


def read_request(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        part = peer.recv(65536)
        if not part:
            return data
        data += part
    return data


def answers(*replies: bytes) -> Talk:
    """Answer one request after the other, then close."""

    def talk(peer: socket.socket) -> None:
        for reply in replies:
            if read_request(peer):
                peer.sendall(reply)

    return talk


class Peer:
    """A raw TCP server: the n-th connection is handled by the n-th talk, each in its own thread."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(20)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v2"
        self.accepted = 0
        self.closed = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def expect(self, *talks: Talk) -> None:
        thread = threading.Thread(target=self._accept, args=(talks,))
        thread.start()
        self._threads.append(thread)

    def _accept(self, talks: tuple[Talk, ...]) -> None:
        for talk in talks:
            try:
                peer, _ = self.listener.accept()
            except TimeoutError:
                return  # the client never came; its test says why
            peer.settimeout(20)
            self.accepted += 1
            with peer, suppress(OSError):
                talk(peer)
            self.closed.release()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(20)
        self.listener.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.finish()


@pytest.fixture
def connect(peer: Peer) -> Iterator[Callable[..., Connections]]:
    made: list[Connections] = []

    def make(**options: Any) -> Connections:
        made.append(Connections(peer.url, {}, **options))
        return made[-1]

    yield make
    for connections in made:
        connections.close()


def test_one_connection_serves_many_requests(peer: Peer, connect: Any) -> None:
    peer.expect(answers(OK, OK, OK))
    connections = connect()

    for _ in range(3):
        assert connections.exchange(GET).body == b"{}"

    assert peer.accepted == 1


def test_a_connection_that_the_service_closed_is_not_used_again(peer: Peer, connect: Any) -> None:
    peer.expect(answers(OK), answers(OK))
    connections = connect()
    connections.exchange(GET)
    assert peer.closed.acquire(timeout=20)

    assert connections.exchange(GET).status == 200
    assert peer.accepted == 2


def test_a_connection_that_was_idle_for_long_is_not_used_again(peer: Peer, connect: Any) -> None:
    peer.expect(answers(OK, OK), answers(OK))
    time = [0.0]
    connections = connect(now=lambda: time[0])
    connections.exchange(GET)
    time[0] += MAX_IDLE_S

    connections.exchange(GET)

    assert peer.accepted == 2


def test_threads_use_a_connection_each(service: Any, base_url: str) -> None:
    release = threading.Event()
    service.on("GET ep/health", service.answer(json={}, release=release))
    connections = Connections(base_url, {})

    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(connections.exchange, GET) for _ in range(8)]
        service.await_requests(8)
        release.set()
        assert [reply.result(20).status for reply in replies] == [200] * 8

    assert len(connections._idle) == 8
    connections.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ],
)
def test_a_reply_that_breaks_off_or_is_garbage_is_no_reply(peer: Peer, connect: Any, reply: bytes) -> None:
    peer.expect(answers(reply))
    connections = connect()

    with pytest.raises(NoReply):
        connections.exchange(GET)

    assert not connections._idle


def test_a_dripping_reply_is_cut_at_the_time_out(peer: Peer, connect: Any) -> None:
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not over.wait(0.02):
            client.sendall(b" ")

    peer.expect(drip)

    with pytest.raises(NoReply, match=r"no reply within 0\.3 s") as caught:
        connect().exchange(Request(method="GET", path="x", timeout_s=0.3))

    assert caught.value.timed_out
    over.set()


def test_a_refusal_before_the_end_of_the_body_is_read(peer: Peer, connect: Any) -> None:
    def refuse(client: socket.socket) -> None:
        client.recv(1024)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 20):
            pass

    peer.expect(refuse)
    big = Request(method="POST", path="ep/run", timeout_s=20, body=b"x" * (8 << 20))

    assert connect().exchange(big).status == 400


def test_a_body_that_could_not_leave_counts_as_not_sent(peer: Peer, connect: Any) -> None:
    peer.expect(lambda client: None)
    big = Request(method="POST", path="ep/run", timeout_s=20, body=b"x" * (32 << 20))

    with pytest.raises(NotSent):
        connect().exchange(big)


def test_connection_close_closes_the_connection(peer: Peer, connect: Any) -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    peer.expect(answers(closing), answers(OK))
    connections = connect()

    connections.exchange(GET)
    assert not connections._idle
    connections.exchange(GET)


def test_a_dropped_client_closes_its_connections(peer: Peer) -> None:
    def answer_and_wait(client: socket.socket) -> None:
        answers(OK)(client)
        client.recv(1)

    peer.expect(answer_and_wait)
    connections = Connections(peer.url, {})
    connections.exchange(GET)

    del connections
    gc.collect()

    assert peer.closed.acquire(timeout=20)


def test_a_forked_child_uses_its_own_connections(peer: Peer, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.expect(answers(OK, OK), answers(OK))
    connections = connect()
    connections.exchange(GET)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a child; a real fork of pytest with its threads is unsafe

    connections.exchange(GET)

    assert peer.accepted == 2


def serve_tls(peer: Peer) -> str:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    def talk(client: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(client, server_side=True) as wrapped:
            answers(OK, OK)(wrapped)

    peer.expect(talk)
    return peer.url.replace("http://127.0.0.1", "https://localhost")


def test_https_works_with_a_trusted_service(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    connections = Connections(serve_tls(peer), {})

    assert [connections.exchange(GET).status for _ in range(2)] == [200, 200]

    assert peer.accepted == 1
    connections.close()


def test_a_certificate_that_cannot_be_trusted_is_final(peer: Peer) -> None:
    with pytest.raises(LinkDown, match=r"localhost:\d+ cannot be trusted: self-signed certificate"):
        Connections(serve_tls(peer), {}).exchange(GET)


async def test_the_asyncio_client_trusts_no_more(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(runpod_worker), "endpoint_url_base", serve_tls(peer))

    async with runpod_worker.AsyncioEndpoint("ep", api_key="k") as endpoint:
        with pytest.raises(LinkDown, match=r"localhost:\d+ cannot be trusted"):
            await endpoint.health()


def proxied(peer: Peer, monkeypatch: pytest.MonkeyPatch, base_url: str, reply: bytes) -> list[bytes]:
    """Name the peer as the system's proxy; return the requests that it gets."""
    requests: list[bytes] = []

    def talk(client: socket.socket) -> None:
        requests.append(read_request(client))
        client.sendall(reply)

    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name.lower(), peer.url.removesuffix("/v2").replace("://", "://me:p%40ss@"))
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setitem(vars(runpod_worker), "endpoint_url_base", base_url)
    peer.expect(talk)
    return requests


CREDENTIALS = b"Proxy-Authorization: Basic bWU6cEBzcw=="


@pytest.mark.parametrize("client", ["blocking", "asyncio"])
async def test_the_systems_proxy_is_used(peer: Peer, monkeypatch: pytest.MonkeyPatch, client: str) -> None:
    requests = proxied(peer, monkeypatch, "http://jobs.example/v2", OK)

    if client == "blocking":
        endpoint = runpod_worker.Endpoint("ep", api_key="k")
        assert await asyncio.to_thread(endpoint.health) == {}
        endpoint.rp_client.close()
    else:
        async with runpod_worker.AsyncioEndpoint("ep", api_key="k") as awaited:
            assert await awaited.health() == {}

    assert requests[0].startswith(b"GET http://jobs.example/v2/ep/health HTTP/1.1")
    assert CREDENTIALS in requests[0]


def test_https_goes_through_a_tunnel_of_the_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://jobs.example/v2"
    requests = proxied(peer, monkeypatch, url, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    connections = Connections(url, {"Authorization": "Bearer k"}, proxy_for(url))

    with pytest.raises(NotSent, match="407 Proxy Authentication Required"):
        connections.exchange(GET)

    assert requests[0].startswith(b"CONNECT jobs.example:443")
    assert CREDENTIALS in requests[0]
    assert b"Bearer" not in requests[0]


def test_a_refused_connection_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(NotSent, match=f"127.0.0.1:{port}"):
        Connections(f"http://127.0.0.1:{port}/v2", {}).exchange(GET)
