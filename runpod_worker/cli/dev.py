"""`runpod-worker dev`: a service and a worker on this machine; the worker restarts when a file changes."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.cli.options import AsRunpod, Handler
from runpod_worker.cli.worker import replace_runpod
from runpod_worker.log import log, setup
from runpod_worker.processes import adopt_orphans, end_orphans
from runpod_worker.system import on_termination, require_worker_support
from runpod_worker.workerfile import load_beside

DEFAULT_PORT = 8000

CHECK_INTERVAL_S = 0.3
SHUTDOWN_TIMEOUT_S = 5.0
"""Kill the worker when it has not exited by then."""


@exit_on_error
def dev(
    handler: Handler,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; by default 8000 or the next free one; 0: any free one."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Name of the endpoint; default: that of worker.yaml, or dev.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="ERROR, WARN, INFO or DEBUG.")] = "INFO",
    as_runpod: AsRunpod = False,
) -> int:
    """Run HANDLER behind a job service on this machine, and restart it when a Python file beside it changes.

    Ctrl-C ends both, and removes jobs and files.
    """
    require_worker_support("dev")
    setup(log_level)
    replace_runpod(as_runpod)
    name = endpoint or load_beside(handler).endpoint or "dev"
    return asyncio.run(_dev(handler.resolve(), _free_port() if port is None else port, name, log_level))


def _free_port() -> int:
    """The default port, or the next one that no other program uses, such as vLLM."""
    for port in range(DEFAULT_PORT, DEFAULT_PORT + 100):
        with socket.socket() as probe:
            if sys.platform != "win32":  # there it would allow a port in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port != DEFAULT_PORT:
            typer.echo(f"port {DEFAULT_PORT} is in use, so the service takes {port}", err=True)
        return port
    return 0


async def _dev(handler: Path, port: int, endpoint: str, log_level: str) -> int:
    stop = asyncio.Event()
    on_termination(stop.set)
    async with _service(port) as url:
        target = f"{url}/v2/{endpoint}"
        typer.echo(f"service  {target}\ntry      {try_line(target, handler)}\n")
        await _worker_until(stop, handler, target, log_level)
    return 0


@asynccontextmanager
async def _service(port: int) -> AsyncIterator[str]:
    from runpod_worker.service.server import Server, open_stores
    from runpod_worker.service.settings import ServiceSettings, WebhookSettings

    with tempfile.TemporaryDirectory(prefix="runpod-dev-") as data:
        settings = ServiceSettings(port=port, data=Path(data), webhooks=WebhookSettings(private=True))
        server = Server(settings, open_stores(settings))
        try:
            await server.start()
            yield server.url
        finally:
            await server.close()


async def _worker_until(stop: asyncio.Event, handler: Path, target: str, log_level: str) -> None:
    """Run a worker with the current files until `stop`."""
    adopt_orphans()
    while not stop.is_set():
        stamps = _stamps(handler.parent)
        command = ["-m", "runpod_worker", "run", str(handler), "--url", target, "--log-level", log_level]
        worker = await asyncio.create_subprocess_exec(sys.executable, "-u", *command, start_new_session=True)
        try:
            changed = await _wait_for_change(stop, handler.parent, stamps, worker)
        finally:
            await _shut_down(worker)
            await asyncio.to_thread(end_orphans)  # of a worker that was killed; they may hold its ports
        if changed:
            log.info("dev.worker_restarted", extra={"changed": ", ".join(changed)})


async def _wait_for_change(
    stop: asyncio.Event, folder: Path, stamps: dict[str, int], worker: asyncio.subprocess.Process
) -> list[str]:
    """Wait for `stop` or a change, even if the worker exits first, and return the changed files."""
    reported = False
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), CHECK_INTERVAL_S)
        except TimeoutError:
            now = _stamps(folder)
            if now != stamps:
                return sorted(name for name in now.keys() | stamps.keys() if now.get(name) != stamps.get(name))
        if worker.returncode is not None and not reported:
            reported = True
            log.warning("dev.worker_exited", extra={"status": worker.returncode, "next": "waiting for a change"})
    return []


async def _shut_down(worker: asyncio.subprocess.Process) -> None:
    if worker.returncode is not None:
        return
    worker.terminate()
    try:
        await asyncio.wait_for(worker.wait(), SHUTDOWN_TIMEOUT_S)
    except TimeoutError:
        worker.kill()
        await worker.wait()


def _stamps(folder: Path) -> dict[str, int]:
    stamps = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts[:-1]):
            continue
        try:
            stamps["/".join(parts)] = path.stat().st_mtime_ns
        except FileNotFoundError:  # removed since the listing
            continue
    return stamps


def try_line(target: str, handler: Path) -> str:
    """A curl command with the handler's test input."""
    example = handler.parent / "test_input.json"
    try:
        job_input = json.loads(example.read_text(encoding="utf-8"))["input"]
    except (OSError, ValueError, KeyError, TypeError):
        job_input = {"prompt": "hello"}
    body = json.dumps({"input": job_input}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {target}/runsync -H 'Content-Type: application/json' -d '{body}'"
