"""A proxy before the real service that denies requests for a while."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

PAGE = b"<html>no such backend</html>"


class Proxy(ThreadingHTTPServer):
    """Forwards each request to the service; while `status` is set, answers POST with it and a page of its own."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.port = port
        self.status: int | None = None
        self.denied = 0


class Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.status is not None and self.command == "POST":
            self.server.denied += 1
            self.answer(self.server.status, {}, PAGE)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=100)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            reply = upstream.getresponse()
            self.answer(reply.status, {k: v for k, v in reply.getheaders() if k.startswith("X-")}, reply.read())
        except (OSError, http.client.HTTPException):  # one of them has ended
            self.close_connection = True
        finally:
            upstream.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = forward  # noqa: N815 - the names of http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        """Print nothing."""


@pytest.fixture
def proxy(workers: Any) -> Iterator[Proxy]:
    with Proxy(workers.port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


@pytest.mark.parametrize("status", [404, 413])
def test_a_proxy_that_denies_reports_for_a_while_costs_no_result_and_no_second_run(
    workers: Any, proxy: Proxy, status: int
) -> None:
    runs = workers.folder / "runs"
    url = f"http://127.0.0.1:{proxy.server_address[1]}/v2/{workers.endpoint}"
    workers.worker(
        f"""
        @worker.handler
        def handler(job):
            open({str(runs)!r}, "a").write("run ")
            return "done"
        """,
        "--url",
        url,
    )
    proxy.status = status
    job_id = workers.run(1)

    workers.until(lambda: proxy.denied >= 2, "the report is denied and sent again")
    assert workers.get(f"status/{job_id}")["status"] == "IN_PROGRESS"
    proxy.status = None

    view = workers.ended(job_id)
    assert (view["status"], view["output"]) == ("COMPLETED", "done")
    assert runs.read_text() == "run "
