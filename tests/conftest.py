"""For every test: a clean environment, so that no setting of the machine leaks in; and a web server with files."""

import asyncio
import contextlib
import logging
import os
import select
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import runpod_worker


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-processes", action="store_true", help="skip every test that starts a process")


@pytest.fixture(scope="session", autouse=True)
def no_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    def skip(*_: object, **__: object) -> None:
        pytest.skip("starts a process")

    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--no-processes"):
            patch.setattr(subprocess.Popen, "__init__", skip)
        yield


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(("RUNPOD_", "BUCKET_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNPOD_WORKER_SPOOL", str(tmp_path_factory.mktemp("spool")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def clean_logger() -> Iterator[None]:
    """Each test begins with the logger of a library, which some tests set up as a program would."""
    logger = logging.getLogger("runpod_worker")
    logger.handlers[:], logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers[:] = []


@pytest.fixture(autouse=True)
def clean_client_settings() -> None:
    """Each test begins with the key and URL of the environment: what a test has assigned would win over it."""
    for name in ("api_key", "endpoint_url_base"):
        vars(runpod_worker).pop(name, None)


@pytest.fixture
async def fast_time() -> AsyncIterator[None]:
    """Let the loop skip each wait for its next timer: for tests without sockets and processes."""
    loop: Any = asyncio.get_running_loop()
    skipped, now, select = 0.0, loop.time, loop._selector.select

    def skip(timeout: float | None) -> Any:
        nonlocal skipped
        if timeout:
            skipped += timeout
        return select(None if timeout is None else 0)

    loop.time, loop._selector.select = lambda: now() + skipped, skip
    yield
    loop.time, loop._selector.select = now, select


class Slow:
    """A file whose server sends only the first byte until `release`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requested = threading.Event()
        self.left = threading.Event()
        """The client closed the connection before it got the whole file."""
        self._ours, self._theirs = socket.socketpair()

    def release(self) -> None:
        self._ours.send(b"x")

    def wait(self, client: socket.socket) -> bool:
        """Whether the file was released before the client disconnected."""
        readable, _, _ = select.select([client, self._theirs], [], [])
        return self._theirs in readable

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class FileServer:
    """Serves files by path: bytes (or with a false size), a status, a redirect, a Slow file, or a list of these."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}
        self.requested: list[str] = []
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,)
        )  # seconds until it sees its shutdown
        self._thread.start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self._server.server_port}{path}"

    def slow(self, path: str, content: bytes = b"slow") -> Slow:
        self.files[path] = Slow(content)
        return self.files[path]

    def answer(self, path: str) -> Any:
        self.requested.append(path)
        file = self.files[path.partition("?")[0]]
        return file.pop(0) if isinstance(file, list) else file

    def close(self) -> None:
        slow = [file for file in self.files.values() if isinstance(file, Slow)]
        for file in slow:
            file.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for the requests
        for file in slow:
            file.close()


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        match self.server.file_server.answer(self.path):
            case int() as status:
                self._head(status)
            case str() as url:
                self._head(302, Location=url)
            case Slow() as slow:
                self._slow(slow)
            case (int() as announced, bytes() as sent):
                self._content(announced, sent)
            case bytes() as content:
                self._content(len(content), content)

    def _slow(self, slow: Slow) -> None:
        self._content(len(slow.content), slow.content[:1])
        slow.requested.set()
        if slow.wait(self.connection):
            with contextlib.suppress(OSError):
                self.wfile.write(slow.content[1:])
        else:
            slow.left.set()

    def _content(self, size: int, sent: bytes) -> None:
        self._head(200, **{"Content-Length": str(size)})
        self.wfile.write(sent)

    def _head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self, file_server: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.file_server = file_server


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """A web server with files, on loopback."""
    server = FileServer()
    yield server
    server.close()
