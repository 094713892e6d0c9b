"""Downloads for jobs: `File` inputs before the job has a slot, `job.fetch` while the handler waits.

Each download is a task of one event loop in a background thread; cancelling the task ends the download.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import nullcontext
from pathlib import Path

from runpod_worker.config import DownloadSettings
from runpod_worker.core.errors import DownloadFailed, DownloadRefused, InputError
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
        self._background = BackgroundLoop()
        self._free = asyncio.Semaphore(settings.max_concurrent)

    def is_local(self, source: str) -> bool:
        """Whether the source is the path of a local file that the job may use."""
        return self._local and not sources.is_url(source) and os.path.isfile(source)  # noqa: PTH113 - never raises

    def start(self, download: Download, *, queued: bool) -> Future[None]:
        """Begin the download. `queued`: wait for a free place among the concurrent downloads first."""
        return self._background.start(self._run(download, queued=queued))

    def remove(self, folder: Path, downloads: Sequence[Download]) -> None:
        """Remove the folder in the background, once none of these downloads writes into it."""
        self._background.start(_remove(folder, downloads))

    def close(self) -> None:
        """End all downloads and remove all files."""
        self._background.close(MAX_CLOSE_S)
        self.scratch.close()

    async def _run(self, download: Download, *, queued: bool) -> None:
        download.task = asyncio.current_task()
        async with self._free if queued else nullcontext():
            download.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            if not sources.is_url(download.source):
                self._decode(download)
                return
            from runpod_worker.net.download import download as save  # takes 0.15 s, because it imports aiohttp

            await save(
                download.source,
                download.path,
                max_bytes=download.max_bytes,
                timeout_s=self._settings.timeout_s,
                private=self._settings.private,
                random=random.random,
            )

    def _decode(self, download: Download) -> None:
        try:
            data = sources.decode(download.source)
        except ValueError as error:
            raise ValueError(str(error).replace(sources.EXPECTED, self.expected)) from None
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
        self.task: asyncio.Task[None] | None = None
        """Still writes for a moment after `future` was cancelled."""

    @property
    def ended(self) -> bool:
        """Whether the download has succeeded or failed."""
        return self.future is not None and self.future.done()

    def error(self) -> BaseException | None:
        """Why the download failed; None if it succeeded or has not ended."""
        if self.future is None or not self.future.done():
            return None
        try:
            return self.future.exception()
        except CancelledError as error:
            return error


class JobFiles:
    """Downloads each file once, however often the job names it. Any thread may use it."""

    def __init__(self, home: Downloads) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._downloads: dict[str, Download] = {}
        self._on_settled: Callable[[], None] | None = None
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

    def start(self, on_settled: Callable[[], None]) -> None:
        """Begin all downloads; call `on_settled` once, when all files have arrived or one has failed."""
        self._on_settled = on_settled
        for download in list(self._downloads.values()):
            with self._lock:
                if self._stop_reason is None:
                    download.future = self._home.start(download, queued=True)
            if download.future is not None:
                download.future.add_done_callback(lambda _: self._on_download_ended())
        self._on_download_ended()

    def input_error(self, field_of: Callable[[str], str]) -> Exception | None:
        """The error to raise for a failed download; `field_of` returns the input field of a source."""
        for download in list(self._downloads.values()):
            if error := self._error(download, f"{field_of(download.source)}: "):
                return error
        return None

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
                download.future = self._home.start(download, queued=False)
        wait([download.future])
        if error := self._error(download):
            raise error
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
        self._settle()

    def close(self) -> None:
        """End every download and remove the files."""
        self.stop(JOB_ENDED)
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            self._home.remove(folder, list(self._downloads.values()))

    def _find_or_add(self, source: str, max_bytes: int) -> Download:
        """The download of this source; a new one if it does not exist or failed."""
        download = self._downloads.get(source)
        if download is not None and download.error() is None:
            return download
        if self._stop_reason is not None:
            raise InputError(f"{sources.describe(source)}: {self._stop_reason}")
        self._folder = self._folder or self._home.scratch.new_folder()
        path = self._folder / str(next(self._numbers)) / sources.file_name(source)
        download = self._downloads[source] = Download(source, path, max_bytes)
        return download

    def _error(self, download: Download, field: str = "") -> Exception | None:
        """The error to raise for a failed download: InputError if the caller can correct it, else its own error."""
        error = download.error()
        if isinstance(error, CancelledError):
            error = DownloadFailed(self._stop_reason or JOB_ENDED)
        if isinstance(error, DownloadRefused | DownloadFailed):
            return InputError(f"{field}{sources.describe(download.source)}: {error}")
        if isinstance(error, ValueError):
            return InputError(f"{field}{error}")
        return error if isinstance(error, Exception) else None

    def _on_download_ended(self) -> None:
        downloads = list(self._downloads.values())
        if all(download.ended for download in downloads) or any(download.error() for download in downloads):
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            on_settled, self._on_settled = self._on_settled, None
        if on_settled is not None:
            on_settled()


async def _remove(folder: Path, downloads: Sequence[Download]) -> None:
    tasks = [download.task for download in downloads if download.task is not None]
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.to_thread(remove, folder)
