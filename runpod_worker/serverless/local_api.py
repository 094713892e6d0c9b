"""`--rp_serve_api`: the handler behind a job API on this machine, a real service and a real worker (protocol C.5).

The service runs in a child process, this process runs the handler. Paths are answered as `/v2/ENDPOINT/run` and, as
the SDK has them, as `/run`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from typing import NamedTuple

import msgspec

from runpod_worker.config import WorkerSettings, environment, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import log, setup
from runpod_worker.system import on_termination
from runpod_worker.worker.launch.launch import run_with_agent, with_package
from runpod_worker.worker.worker import Worker

ENDPOINT = "local"
DAY_MS = 24 * 3600 * 1000


class Listen(NamedTuple):
    """Where the API is, and how many jobs run at once; 1: as many as the handler says."""

    host: str
    port: int
    concurrency: int = 1


class _Order(msgspec.Struct):
    host: str
    port: int
    endpoint: str
    log_level: str
    as_json: bool


def serve_api(worker: Worker, settings: WorkerSettings, listen: Listen) -> int:
    """Serve until told to stop; the exit code."""
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    worker.declaration()
    endpoint = settings.endpoint_id or ENDPOINT
    service = _start(
        _Order(listen.host, listen.port, endpoint, settings.log_level, as_json=settings.endpoint_id is not None)
    )
    assert service.stdin is not None  # noqa: S101 - both are pipes
    assert service.stdout is not None  # noqa: S101
    url = service.stdout.readline().decode().strip()
    if not url:
        return service.wait() or 1
    try:
        return run_with_agent(worker.declaration, _settings(settings, f"{url}/v2/{endpoint}", listen.concurrency))
    finally:
        service.stdin.close()  # upon which it ends
        service.wait()


def _start(order: _Order) -> subprocess.Popen[bytes]:
    service = subprocess.Popen(  # noqa: S603 - this very interpreter, with our own module
        [sys.executable, "-P", "-m", __name__],
        env=with_package(environment()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # a Ctrl-C at the terminal is for this process
    )
    assert service.stdin is not None  # noqa: S101 - it is a pipe
    service.stdin.write(msgspec.json.encode(order) + b"\n")
    service.stdin.flush()
    return service


def _settings(settings: WorkerSettings, url: str, concurrency: int) -> WorkerSettings:
    """The settings, with this service instead of any other."""
    kept = {one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)}
    for derived in ("take_url", "done_url", "stream_url", "ping_url", "api_key"):
        del kept[derived]
    if concurrency > 1:
        kept["concurrency"] = concurrency
    return worker_settings({**kept, "url": url}, env={})


# ------------------------------------------------------------------ the service's process


def _service_main() -> int:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order)
    setup(order.log_level, as_json=order.as_json)
    try:
        asyncio.run(_serve(order))
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


async def _serve(order: _Order) -> None:
    from runpod_worker.service.server import Server, is_loopback, open_stores
    from runpod_worker.service.settings import ServiceSettings, WebhookSettings

    settings = ServiceSettings(
        host=order.host,
        port=order.port,
        data=None,
        runsync_poll_timeout_s=DAY_MS / 1000,
        execution_timeout_ms=DAY_MS,
        webhooks=WebhookSettings(private=True),
    )
    server = Server(settings, open_stores(settings), open_to_all=True, root_endpoint=order.endpoint)
    if not is_loopback(order.host):
        log.warning("local_api.open", extra={"host": order.host, "means": "everybody who reaches it may use it"})
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_termination(gone.set)
    loop.add_reader(sys.stdin.fileno(), gone.set)  # its end: whoever started us is gone, or wants us to end
    try:
        await server.start()
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        os.set_blocking(sys.stdin.fileno(), False)
        await gone.wait()
    finally:
        await server.close()


if __name__ == "__main__":
    sys.exit(_service_main())
