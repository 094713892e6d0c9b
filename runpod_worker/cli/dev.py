"""`runpod-worker dev`: service and worker together on this machine; the worker restarts when its file changes."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.cli.options import AsRunpod, Handler
from runpod_worker.cli.work import stand_for_runpod
from runpod_worker.log import log, setup
from runpod_worker.system import on_termination, require_worker_support
from runpod_worker.workerfile import load_beside

LOOK_EVERY_S = 0.3
STOP_S = 5.0


@bordered
def dev(
    handler: Handler,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0 lets the system choose.")] = 8000,
    endpoint: Annotated[str | None, typer.Option(help="Name of the endpoint; worker.yaml's or dev by default.")] = None,
    log_level: Annotated[str, typer.Option(help="ERROR, WARN, INFO or DEBUG.")] = "INFO",
    as_runpod: AsRunpod = False,
) -> int:
    """Run HANDLER behind a job service on this machine, and restart it whenever a Python file beside it changes.

    Jobs and files are gone at the end. Ctrl-C ends both.
    """
    require_worker_support("dev")
    setup(log_level)
    stand_for_runpod(as_runpod)
    name = endpoint or load_beside(handler).endpoint or "dev"
    return asyncio.run(_dev(handler.resolve(), port, name, log_level))


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
    """Keep one worker running the newest file until `stop`."""
    while not stop.is_set():
        seen = _stamps(handler.parent)
        command = ["-m", "runpod_worker", "run", str(handler), "--url", target, "--log-level", log_level]
        worker = await asyncio.create_subprocess_exec(sys.executable, "-u", *command, start_new_session=True)
        try:
            changed = await _change(stop, handler.parent, seen, worker)
        finally:
            await _end(worker)
        if changed:
            log.info("dev.restart", extra={"changed": ", ".join(changed)})


async def _change(
    stop: asyncio.Event, folder: Path, seen: dict[str, int], worker: asyncio.subprocess.Process
) -> list[str]:
    """Wait for `stop` or for changed files, and return their names. A worker that died waits for the next change."""
    told = False
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)
        except TimeoutError:
            now = _stamps(folder)
            if now != seen:
                return sorted(name for name in now.keys() | seen.keys() if now.get(name) != seen.get(name))
        if worker.returncode is not None and not told:
            told = True
            log.warning("dev.worker-ended", extra={"status": worker.returncode, "next": "waiting for a change"})
    return []


async def _end(worker: asyncio.subprocess.Process) -> None:
    if worker.returncode is not None:
        return
    worker.terminate()
    try:
        await asyncio.wait_for(worker.wait(), STOP_S)
    except TimeoutError:
        worker.kill()
        await worker.wait()


def _stamps(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts[:-1]):
            continue
        try:
            found["/".join(parts)] = path.stat().st_mtime_ns
        except FileNotFoundError:  # it went away between the listing and the look
            continue
    return found


def try_line(target: str, handler: Path) -> str:
    """A curl command that sends the handler's own test input."""
    example = handler.parent / "test_input.json"
    try:
        job_input = json.loads(example.read_text(encoding="utf-8"))["input"]
    except (OSError, ValueError, KeyError, TypeError):
        job_input = {"prompt": "hello"}
    body = json.dumps({"input": job_input}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {target}/runsync -H 'Content-Type: application/json' -d '{body}'"
