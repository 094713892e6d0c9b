"""Downloads for all jobs: `File` inputs before the job has its slot, `job.fetch` while the handler waits.

Every download is a task of one event loop in a background thread. Ending a download means cancelling its task.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from runpod_worker.config import DownloadSettings
from runpod_worker.core.errors import DownloadRefused, InputError
from runpod_worker.net.background import BackgroundLoop
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.files import sources
from runpod_worker.worker.executor.files.jobfiles import Download, JobFiles
from runpod_worker.worker.executor.files.scratch import Scratch, remove, sweep
from runpod_worker.worker.handler.job import File

MAX_CLOSE_S = 2.0
"""Seconds. At the end, downloads and removals that need longer are left alone; then all files are removed."""


class Downloads:
    """The downloads of this process. `local`: the job of a developer's own test may name local files."""

    def __init__(self, settings: DownloadSettings, *, local: bool = False) -> None:
        self.max_bytes = settings.max_bytes
        self._settings = settings
        self._local = local
        self._expected = f"the path of a file, {sources.EXPECTED}" if local else sources.EXPECTED
        self._scratch = Scratch()
        self._background = BackgroundLoop()
        self._free = asyncio.Semaphore(settings.max_concurrent)
        self._lock = threading.Lock()
        self._jobs: weakref.WeakSet[JobFiles] = weakref.WeakSet()
        self._removals: set[Future[None]] = set()

    def sweep(self) -> None:
        """Remove what processes left that were killed."""
        sweep()

    def fetch(self, attempt: Attempt, source: object, limit: int | None) -> Path:
        """Download the file for a running job, and wait for it.

        Raises:
            InputError: the file cannot be downloaded.
        """
        if not isinstance(source, str):
            raise InputError(f"job.fetch: expected {self._expected}, got {source!r} ({type(source).__name__})")
        return Path(source) if self._is_local(source) else self._files_of(attempt).fetch(source, limit)

    def decode_field(self, attempt: Attempt, kind: type, value: object) -> File:
        """Decode a field of a job's input that is a `File`: the path where the file will be.

        Raises:
            ValueError: the value names no file, or the field has a type that the worker does not know.
        """
        if kind is not File:
            raise ValueError(f"Expected {kind.__name__}")
        if not isinstance(value, str):
            raise ValueError(f"Expected {self._expected}")  # noqa: TRY004
        return File(value if self._is_local(value) else self._files_of(attempt).path(value))

    def close(self) -> None:
        """End all downloads and remove all files."""
        for files in list(self._jobs):
            files.close()
        wait(list(self._removals), MAX_CLOSE_S)
        self._background.close(MAX_CLOSE_S)
        self._scratch.close()

    # ---------------------------------------------------------------- for the files of one job

    def new_folder(self) -> Path:
        return self._scratch.new_folder()

    def start(self, download: Download, *, queued: bool) -> Future[None]:
        return self._background.start(self._run_queued(download) if queued else self._run(download))

    def remove(self, folder: Path, downloads: Sequence[Download]) -> None:
        removal = self._background.start(_remove(folder, downloads))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    # ---------------------------------------------------------------- on the background loop

    async def _run_queued(self, download: Download) -> None:
        async with self._free:
            await self._run(download)

    async def _run(self, download: Download) -> None:
        download.task = asyncio.current_task()
        download.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        if not sources.is_url(download.source):
            self._decode(download)
            return
        from runpod_worker.net.download import download as save  # 0.15 s for aiohttp, which most workers save

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
            raise ValueError(str(error).replace(sources.EXPECTED, self._expected)) from None
        if len(data) > download.max_bytes:
            raise DownloadRefused(f"expected at most {download.max_bytes} bytes, got {len(data)}")
        download.path.write_bytes(data)

    def _files_of(self, attempt: Attempt) -> JobFiles:
        with self._lock:
            files = attempt.job_files
            if not isinstance(files, JobFiles):
                files = attempt.job_files = JobFiles(self)
                self._jobs.add(files)
            return files

    def _is_local(self, source: str) -> bool:
        return self._local and not sources.is_url(source) and os.path.isfile(source)  # noqa: PTH113 - never raises


async def _remove(folder: Path, downloads: Sequence[Download]) -> None:
    """Remove the folder once no download writes into it."""
    tasks = [download.task for download in downloads if download.task is not None]
    if tasks:
        await asyncio.wait(tasks)
    await asyncio.to_thread(remove, folder)
