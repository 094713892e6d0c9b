"""`--rp_serve_api`: serve the handler on this machine, through a real service and a real worker (protocol C.5).

The service runs in a child process; this process runs the handler. The service answers `/v2/ENDPOINT/run` and also the
SDK's path, `/run`. This is the only module that brings service and worker together.
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
from runpod_worker.core.dispatch.values import OnRefresh
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import log, setup
from runpod_worker.system import on_termination
from runpod_worker.worker.launch.launch import run_with_agent, with_package
from runpod_worker.worker.worker import Worker

ENDPOINT = "local"
DAY_MS = 24 * 3600 * 1000


class Listen(NamedTuple):
    """The address of the API, and how many jobs run at the same time. At 1 the handler's own number applies."""

    host: str
    port: int
    concurrency: int = 1


class _ServiceConfig(msgspec.Struct):
    """What the service's process reads from its standard input."""

    host: str
    port: int
    endpoint: str
    log_level: str
    as_json: bool


def serve_api(worker: Worker, settings: WorkerSettings, listen: Listen) -> int:
    """Serve until this process is asked to stop; return the exit code."""
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    worker.declaration()
    endpoint = settings.endpoint_id or ENDPOINT
    service = _start(
        _ServiceConfig(listen.host, listen.port, endpoint, settings.log_level, as_json=settings.endpoint_id is not None)
    )
    url = service.stdout.readline().decode().strip() if service.stdout else ""
    if not url:
        return service.wait() or 1
    try:
        ours = _settings(settings, f"{url}/v2/{endpoint}", listen.concurrency)
        return run_with_agent(worker.declaration, ours, OnRefresh.KEEP)  # an exit would end the service too
    finally:
        if service.stdin:
            service.stdin.close()  # the service then ends
        service.wait()


def _start(config: _ServiceConfig) -> subprocess.Popen[bytes]:
    service = subprocess.Popen(  # noqa: S603 - this very interpreter, with our own module
        [sys.executable, "-P", "-m", __name__],
        env=with_package(environment()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C goes to this process only
    )
    if service.stdin:
        service.stdin.write(msgspec.json.encode(config) + b"\n")
        service.stdin.flush()
    return service


def _settings(settings: WorkerSettings, url: str, concurrency: int) -> WorkerSettings:
    """The settings, with this service in place of the configured one."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    for derived in ("take_url", "done_url", "stream_url", "ping_url", "api_key"):
        del values[derived]
    if concurrency > 1:
        values["concurrency"] = concurrency
    return worker_settings({**values, "url": url}, env={})


# ------------------------------------------------------------------ the service's process


def _service_main() -> int:
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=_ServiceConfig)
    setup(config.log_level, as_json=config.as_json)
    try:
        asyncio.run(_serve(config))
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


async def _serve(config: _ServiceConfig) -> None:
    from runpod_worker.service.http.guard import is_loopback
    from runpod_worker.service.server import Server, open_stores
    from runpod_worker.service.settings import ServiceSettings, WebhookSettings

    settings = ServiceSettings(
        host=config.host,
        port=config.port,
        data=None,
        runsync_poll_timeout_s=DAY_MS / 1000,
        execution_timeout_ms=DAY_MS,
        webhooks=WebhookSettings(private=True),
    )
    server = Server(settings, open_stores(settings), open_to_all=True, root_endpoint=config.endpoint)
    if not is_loopback(config.host):
        log.warning(
            "local_api.open", extra={"host": config.host, "means": "every program that can reach it may use it"}
        )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_termination(stopped.set)
    loop.add_reader(sys.stdin.fileno(), stopped.set)  # end of file: our parent has exited, or asks us to
    try:
        await server.start()
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        os.set_blocking(sys.stdin.fileno(), False)
        await stopped.wait()
    finally:
        await server.close()


if __name__ == "__main__":
    sys.exit(_service_main())
