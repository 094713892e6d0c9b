"""The job service as a running part: opened, bound to a port, drained and closed, in that order."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runpod_worker.core.errors import SettingsError
from runpod_worker.core.protocol import EXTENSIONS
from runpod_worker.log import log, log_errors
from runpod_worker.net.loop import new_event_loop
from runpod_worker.service.files import FolderFiles
from runpod_worker.service.http.app import App
from runpod_worker.service.http.clients import ClientRoutes, FileRoutes, render_webhook
from runpod_worker.service.http.guard import Guard, is_loopback
from runpod_worker.service.http.openai import OpenAIRoutes
from runpod_worker.service.http.sockets import DisconnectServer
from runpod_worker.service.http.workers import WorkerRoutes
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.journal.port import Journal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.settings import ServiceSettings, make_data_folder
from runpod_worker.service.webhooks import Webhooks
from runpod_worker.system import boot_time, on_termination, raise_file_limit

if TYPE_CHECKING:
    from runpod_worker.service.keys import Keys

BACKLOG = 4096
"""Connections that may wait to be accepted, because after an outage all workers connect at the same time."""

RESERVED_FILES = 256
"""Files and sockets that connections of callers and workers leave to the rest, at most half of what may be open."""

FILE_SWEEP_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores of the service. Without `keys` it has no API keys, without `files` no output files."""

    journal: Journal
    keys: Keys | None = None
    files: FolderFiles | None = None


def open_stores(settings: ServiceSettings) -> Stores:
    """Open the stores that the settings ask for: SQLite and files in the folder `data`, or memory.

    Raises:
        StoreUnavailable: another process has the folder, or it cannot be read.
    """
    if settings.data is None:
        return Stores(journal=NullJournal())
    from runpod_worker.service.journal.sqlite import SqliteJournal  # a service in memory needs no sqlite3
    from runpod_worker.service.keys import DATABASE, Keys

    make_data_folder(settings.data)
    path = settings.data / DATABASE
    return Stores(journal=SqliteJournal(path), keys=Keys(path), files=FolderFiles(settings.data / "files"))


class SteadyClock:
    """Seconds since the epoch: the wall clock at the start, plus the time since then.

    A later step of the wall clock neither ends leases and timeouts nor extends them. The times that the service shows
    follow the step after a restart.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,  # noqa: TID251 - a service's times begin with the real clock
        elapsed: Callable[[], float] = boot_time,
    ) -> None:
        self._elapsed = elapsed
        self._origin = wall() - elapsed()

    def __call__(self) -> float:
        return self._origin + self._elapsed()


class Server:
    """One job service on one port.

    Args:
        settings: the settings of the service.
        stores: where things are kept; closed with the server.
        open_to_all: without keys, answer every caller that reaches the host, from any machine.
        root_endpoint: its routes are answered without `/v2/{endpoint}` too, such as `/run`.
        now: the clock, in seconds since the epoch; by default a `SteadyClock`.
        on_failed: called when one of the service's loops has ended with an error; then close the server.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        stores: Stores,
        *,
        open_to_all: bool = False,
        root_endpoint: str | None = None,
        now: Callable[[], float] | None = None,
        on_failed: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._locked = not (open_to_all or is_loopback(settings.host))
        self._stores = stores
        self._now = now = now or SteadyClock()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.ServerRunner | None = None
        self._binding: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_failed = on_failed
        self.failed = False
        self.queue = JobQueue(stores.journal, settings, now=now)
        body = partial(render_webhook, self.queue)
        self._webhooks = Webhooks(self.queue, body, now=now, random=random.random, settings=settings.webhooks)
        guard = Guard(settings.callers_hosts(), reachable=not is_loopback(settings.host))
        self.app = App(self._routes(), stores.keys, locked=self._locked, root_endpoint=root_endpoint, guard=guard)
        self.url = ""
        """Where the service listens, empty before that."""

    async def start(self, *, listen: bool = True) -> None:
        """Start the service and listen; without `listen`, only `app.handle` answers requests.

        Raises:
            SettingsError: the service has no keys, and other machines can reach the host; or the port is not free.
        """
        if listen:
            self._check_host()
        await self.queue.sweep.start()
        if listen:
            await self._listen()
        self._begin("sweep", self.queue.sweep.run())
        self._begin("webhooks", self._webhooks.run())
        if self._stores.files is not None:
            self._begin("file-sweep", self._sweep_files(self._stores.files))
        if listen:
            log.info("service.listening", extra={"url": self.url})

    async def _listen(self) -> None:
        limits = self._settings.max_run_bytes, self._settings.max_runsync_bytes, self._settings.max_result_bytes
        max_files = raise_file_limit()
        max_connections = max_files - min(max_files // 2, RESERVED_FILES)
        server = DisconnectServer(self.app, body_limit=max(limits), max_connections=max_connections)
        runner = self._runner = web.ServerRunner(server, shutdown_timeout=self._settings.drain_s)
        await runner.setup()
        site = web.TCPSite(runner, self._settings.host, self._settings.port, backlog=BACKLOG)
        self._binding = asyncio.create_task(site.start())
        try:
            await asyncio.shield(self._binding)  # an interruption would leave a socket open
        except OSError as exc:
            raise SettingsError(f"port: cannot listen on {site.name}: {exc.strerror}") from exc
        host, port = runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Answer every long poll, let the other requests finish, write pending changes. A second call waits too."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.queue.drain()
        if self._binding is not None:
            await asyncio.wait([self._binding])
        if self._runner is not None:
            await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stores.journal.close()
        if self._stores.keys is not None:
            self._stores.keys.close()
        log.info("service.closed")

    def _routes(self) -> dict[str, Any]:
        files = self._stores.files
        extensions = EXTENSIONS if files is not None else EXTENSIONS - {"files"}
        routes = ClientRoutes(self.queue).table() | OpenAIRoutes(self.queue).table()
        routes |= WorkerRoutes(self.queue, extensions).table()
        if files is not None:
            routes |= FileRoutes(files, self.queue.jobs, self._settings.max_file_bytes).table()
        return routes

    def _check_host(self) -> None:
        if self._locked and not (self._stores.keys is not None and self._stores.keys.has_keys()):
            raise SettingsError(
                f"host: expected a loopback address like 127.0.0.1, got {self._settings.host!r}: "
                "without API keys every caller could use the service; add a key first"
            )

    async def _sweep_files(self, files: FolderFiles) -> None:
        while True:
            with log_errors("file sweep"):
                await files.sweep(self._now() - self._settings.file_retention_s)
            await asyncio.sleep(FILE_SWEEP_S)

    def _begin(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=f"service-{name}")
        task.add_done_callback(self._on_end)
        self._tasks.append(task)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("service.task_failed", extra={"task": task.get_name()}, exc_info=task.exception())
            self.failed = True
            if self._on_failed is not None:
                self._on_failed()


async def run_service(
    settings: ServiceSettings,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run the job service until `stop` is set; without one, until SIGTERM or SIGINT.

    Args:
        settings: the settings of the service.
        ready: called with the service's URL once it answers.
        stop: ends the service.

    Raises:
        SettingsError: it may not, or cannot, listen there.
        StoreUnavailable: the job store cannot be opened.
    """
    stop = stop or _stop_on_signals()
    server = Server(settings, open_stores(settings), on_failed=stop.set)
    try:
        await server.start()
        if ready is not None:
            ready(server.url)
        await stop.wait()
    finally:
        await server.close()
    if server.failed:
        raise SystemExit(1)


def serve(settings: ServiceSettings, *, ready: Callable[[str], None] | None = None) -> None:
    """Run the job service as this process, until a signal ends it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # rarely: jobs form no cycles, and a look through 100,000 of them takes long
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run_service(settings, ready=ready))


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. SIGHUP is ignored: `runpod-worker keys` of release 0.1 sends it."""
    stop = asyncio.Event()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    on_termination(stop.set)
    return stop
