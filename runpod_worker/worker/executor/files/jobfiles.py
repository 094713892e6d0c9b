"""The files that one job names: on their way, and in a folder of their own until the job has ended."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path
from typing import Protocol

from runpod_worker.core.errors import DownloadFailed, DownloadRefused, InputError
from runpod_worker.worker.executor.files import sources

JOB_ENDED = "the job has ended"


class Download:
    """One file, and its download once that has begun."""

    def __init__(self, source: str, path: Path, max_bytes: int) -> None:
        self.source = source
        self.path = path
        self.max_bytes = max_bytes
        self.future: Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        """Still writes for a moment after `future` was cancelled."""

    @property
    def ended(self) -> bool:
        """Whether the file has arrived, or never will."""
        return self.future is not None and self.future.done()

    def error(self) -> BaseException | None:
        """Why the download failed; None if it succeeded or has not ended."""
        if self.future is None or not self.future.done():
            return None
        try:
            return self.future.exception()
        except CancelledError as error:
            return error


class DownloadStarter(Protocol):
    """What a job needs of the downloads of all jobs."""

    max_bytes: int

    def new_folder(self) -> Path:
        """A path for a new folder."""

    def start(self, download: Download, *, queued: bool) -> Future[None]:
        """Begin the download: at once, or when few enough other queued ones run."""

    def remove(self, folder: Path, downloads: Sequence[Download]) -> None:
        """Remove the folder in the background, once nothing writes into it."""


class JobFiles:
    """Downloads each file once, however often the job names it. Any thread may use it."""

    def __init__(self, starter: DownloadStarter) -> None:
        self._starter = starter
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._numbers = itertools.count()
        self._downloads: dict[str, Download] = {}
        self._on_settled: Callable[[], None] | None = None
        self._stop_reason: str | None = None

    def path(self, source: str) -> Path:
        """Where the file will be once `start` has downloaded it."""
        with self._lock:
            return self._find_or_add(source, self._starter.max_bytes).path

    def start(self, on_settled: Callable[[], None]) -> None:
        """Begin all downloads; call `on_settled` once, when all files have arrived or one has failed."""
        self._on_settled = on_settled
        for download in list(self._downloads.values()):
            with self._lock:
                if self._stop_reason is None:
                    download.future = self._starter.start(download, queued=True)
            if download.future is not None:
                download.future.add_done_callback(lambda _: self._on_download_ended())

    def input_error(self, field_of: Callable[[str], str]) -> Exception | None:
        """What to raise if a download failed; `field_of` returns the input field that names a source."""
        for download in list(self._downloads.values()):
            if error := self._error(download, f"{field_of(download.source)}: "):
                return error
        return None

    def fetch(self, source: str, limit: int | None) -> Path:
        """Download the file, wait for it, and return its path. Raises what went wrong."""
        max_bytes = self._starter.max_bytes if limit is None else min(limit, self._starter.max_bytes)
        with self._lock:
            download = self._find_or_add(source, max_bytes)
            if download.future is None:
                download.future = self._starter.start(download, queued=False)
        wait([download.future])
        if error := self._error(download):
            raise error
        if (size := download.path.stat().st_size) > max_bytes:
            raise InputError(f"{sources.describe(source)}: expected at most {max_bytes} bytes, got {size}")
        return download.path

    def stop(self, reason: str) -> None:
        """End every download and every wait for one."""
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
            self._starter.remove(folder, list(self._downloads.values()))

    def _find_or_add(self, source: str, max_bytes: int) -> Download:
        """The download of this source; a new one if there is none or it failed."""
        download = self._downloads.get(source)
        if download is not None and download.error() is None:
            return download
        if self._stop_reason is not None:
            raise InputError(f"{sources.describe(source)}: {self._stop_reason}")
        self._folder = self._folder or self._starter.new_folder()
        path = self._folder / str(next(self._numbers)) / sources.file_name(source)
        download = self._downloads[source] = Download(source, path, max_bytes)
        return download

    def _error(self, download: Download, field: str = "") -> Exception | None:
        """What to raise for a failed download: InputError if the caller can correct it, else the error itself."""
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
