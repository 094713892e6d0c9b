"""Downloads for jobs: `File` inputs before the job has a slot, `job.fetch` while the handler waits.

Each download is a task of one event loop in a background thread; cancelling the task ends the download.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from runpod_worker.config import DownloadSettings
from runpod_worker.core.errors import DownloadFailed, DownloadRefused, InputError
from runpod_worker.core.schema import path_to
from runpod_worker.net.loop import BackgroundLoop
from runpod_worker.worker.executor.files import sources
from runpod_worker.worker.executor.files.scratch import Scratch, remove
from runpod_worker.worker.handler.job import File

MAX_CLOSE_S = 2.0
"""Seconds. `close` waits at most this long for downloads and removals, then removes all files."""

JOB_ENDED = "the job has ended"


class Downloads:
    """The downloads of this process. `local`: the job of a developer's own test may name local files."""

    def __init__(self, settings: DownloadSettings, *, local: bool = False) -> None:
        self.max_bytes = settings.max_bytes
        self.expected = f"the path of a file, {sources.EXPECTED}" if local else sources.EXPECTED
        self.scratch = Scratch()
        self._settings = settings
        self._local = local
        self.background = BackgroundLoop()
        self._free = asyncio.Semaphore(settings.max_concurrent)

    def is_local(self, source: str) -> bool:
        """Whether the source is the path of a local file that the job may use."""
        return self._local and not sources.is_url(source) and os.path.isfile(source)  # noqa: PTH113 - never raises

    def close(self) -> None:
        """End all downloads and remove all files."""
        self.background.close(MAX_CLOSE_S)
        self.scratch.close()

    async def run(self, download: Download, *, queued: bool) -> None:
        """Write the file. `queued`: wait for a free place among the concurrent downloads first.

        Raises:
            InputError: the caller can correct the error.
        """
        download.task = asyncio.current_task()
        try:
            async with self._free if queued else nullcontext():
                download.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
                await self._write(download)
        except (DownloadRefused, DownloadFailed) as error:
            raise InputError(f"{sources.describe(download.source)}: {error}") from error
        except ValueError as error:
            raise InputError(str(error)) from error

    async def _write(self, download: Download) -> None:
        if sources.is_url(download.source):
            from runpod_worker.net.download import download as save  # takes 0.15 s, because it imports aiohttp

            await save(
                download.source,
                download.path,
                max_bytes=download.max_bytes,
                timeout_s=self._settings.timeout_s,
                private=self._settings.private,
                random=random.random,
            )
            return
        data = sources.decode(download.source, self.expected)
        if len(data) > download.max_bytes:
            raise DownloadRefused(f"expected at most {download.max_bytes} bytes, got {len(data)}")
        download.path.write_bytes(data)


class Download:
    """A file, and its download once it has begun."""

    def __init__(self, source: str, path: Path, max_bytes: int) -> None:
        self.source = source
        self.path = path
        self.max_bytes = max_bytes
        self.future: Future[None] | None = None
        """Ends with this download, or with all downloads of the input."""
        self.task: asyncio.Task[Any] | None = None
        """Still writes for a moment after `future` was cancelled."""

    @property
    def failed(self) -> bool:
        """Whether the download has ended without a file."""
        future = self.future
        return future is not None and future.done() and (future.cancelled() or future.exception() is not None)


class JobFiles:
    """Downloads each file once, however often the job names it. Any thread may use it."""

    def __init__(self, home: Downloads) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._downloads: dict[str, Download] = {}
        self._stop_reason: str | None = None

    def decode_field(self, kind: type, value: object) -> File:
        """Decode a field of the input that is a `File`: the path where the file will be once `start` has downloaded it.

        Raises:
            ValueError: the value names no file, or the field has a type that the worker does not know.
        """
        if kind is not File:
            raise ValueError(f"Expected {kind.__name__}")
        if not isinstance(value, str):
            raise ValueError(f"Expected {self._home.expected}")  # noqa: TRY004
        if self._home.is_local(value):
            return File(value)
        with self._lock:
            return File(self._find_or_add(value, self._home.max_bytes).path)

    def start(self, job_input: object) -> Future[None]:
        """Begin all downloads of the input.

        The future fails with the error of the first download that fails. A stop cancels it.
        """
        downloads = list(self._downloads.values())
        with self._lock:
            arrived = self._home.background.start(self._download_all(downloads, job_input))
            for download in downloads:
                download.future = arrived
            if self._stop_reason is not None:
                arrived.cancel()
        return arrived

    def fetch(self, source: object, limit: int | None) -> Path:
        """Download the file, wait for it, and return its path.

        Raises:
            InputError: the file cannot be downloaded.
        """
        if not isinstance(source, str):
            raise InputError(f"job.fetch: expected {self._home.expected}, got {source!r} ({type(source).__name__})")
        if self._home.is_local(source):
            return Path(source)
        max_bytes = self._home.max_bytes if limit is None else min(limit, self._home.max_bytes)
        with self._lock:
            download = self._find_or_add(source, max_bytes)
            if download.future is None:
                download.future = self._home.background.start(self._home.run(download, queued=False))
        try:
            download.future.result()
        except CancelledError:
            raise InputError(f"{sources.describe(source)}: {self._stop_reason or JOB_ENDED}") from None
        if (size := download.path.stat().st_size) > max_bytes:
            raise InputError(f"{sources.describe(source)}: expected at most {max_bytes} bytes, got {size}")
        return download.path

    def stop(self, reason: str) -> None:
        """Cancel every download, and end every wait for one."""
        with self._lock:
            self._stop_reason = self._stop_reason or reason
            downloads = list(self._downloads.values())
        for download in downloads:
            if download.future is not None:
                download.future.cancel()

    def close(self) -> None:
        """End every download and remove the files."""
        self.stop(JOB_ENDED)
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            self._home.background.start(_remove(folder, list(self._downloads.values())))

    def _find_or_add(self, source: str, max_bytes: int) -> Download:
        """The download of this source; a new one if it does not exist or failed."""
        download = self._downloads.get(source)
        if download is not None and not download.failed:
            return download
        if self._stop_reason is not None:
            raise InputError(f"{sources.describe(source)}: {self._stop_reason}")
        self._folder = self._folder or self._home.scratch.new_folder()
        path = self._folder / str(next(self._numbers)) / sources.file_name(source)
        download = self._downloads[source] = Download(source, path, max_bytes)
        return download

    async def _download_all(self, downloads: Sequence[Download], job_input: object) -> None:
        await asyncio.gather(*(self._download(download, job_input) for download in downloads))

    async def _download(self, download: Download, job_input: object) -> None:
        try:
            await self._home.run(download, queued=True)
        except InputError as error:
            raise InputError(f"{path_to(download.source, job_input)}: {error}") from error


async def _remove(folder: Path, downloads: Sequence[Download]) -> None:
    """Remove the folder once none of these downloads writes into it."""
    tasks = [download.task for download in downloads if download.task is not None]
    for task in tasks:  # where one of several failed, the others still write
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.to_thread(remove, folder)
