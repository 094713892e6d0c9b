"""Downloads for jobs: `File` inputs while the device works on other jobs, `job.fetch` while the job waits."""

from __future__ import annotations

import os
import queue
import random
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runpod_worker.config import DownloadSettings
from runpod_worker.core.errors import DownloadRefused, InputError
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.files import sources
from runpod_worker.worker.executor.files.jobfiles import Fetch, JobFiles
from runpod_worker.worker.executor.files.scratch import Scratch, remove, sweep
from runpod_worker.worker.handler.job import File

END_S = 2.0
"""How long threads are waited for in the end. One that looks up a name cannot be interrupted; it does no harm."""


class Downloads:
    """The downloads of all jobs of this process. `local`: a developer's own test, whose job may name local files."""

    def __init__(self, settings: DownloadSettings, *, local: bool = False) -> None:
        self.most_bytes = settings.max_bytes
        self._settings = settings
        self._local = local
        self._scratch = Scratch()
        self._jobs: weakref.WeakSet[JobFiles] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pool: list[threading.Thread] = []
        self._others: set[threading.Thread] = set()
        self.folder = self._scratch.folder

    def sweep(self) -> None:
        """Remove what was left by processes that had no time to do it."""
        sweep()

    def fetch(self, attempt: Attempt, source: object, limit: int | None) -> Path:
        """Download the file for a attempt job, and wait for it.

        Raises:
            InputError: it cannot be downloaded.
        """
        if not isinstance(source, str):
            raise InputError(f"job.fetch: expected {self._wanted}, got {source!r} ({type(source).__name__})")
        if self._is_here(source):
            return Path(source)
        return self._of(attempt).fetch(source, limit)

    def decoded(self, attempt: Attempt, kind: type, value: object) -> File:
        """A field of a job's input that is a `File`: where it will be.

        Raises:
            ValueError: the value names no file, or the type is none that the worker knows.
        """
        if kind is not File:
            raise ValueError(f"Expected {kind.__name__}")
        if not isinstance(value, str):
            raise ValueError(f"Expected {self._wanted}")  # noqa: TRY004
        return File(value if self._is_here(value) else self._of(attempt).path(value))

    def get(self, fetch: Fetch) -> None:
        """Write the file. Raises what goes wrong."""
        if sources.is_url(fetch.source):
            self._download(fetch)
            return
        try:
            data = sources.content(fetch.source)
        except ValueError as error:
            raise ValueError(str(error).replace(sources.WANTED, self._wanted)) from None
        if len(data) > fetch.most_bytes:
            raise DownloadRefused(f"expected at most {fetch.most_bytes} bytes, got {len(data)}")
        fetch.path.write_bytes(data)

    def ahead(self, work: Callable[[], None]) -> None:
        """Do it in another thread, in its turn."""
        self._work.put(work)
        if len(self._pool) < self._settings.max_concurrent:
            self._pool.append(_thread(self._serve))

    def at_once(self, work: Callable[[], None]) -> None:
        """Do it in another thread."""
        self._others = {thread for thread in self._others if thread.is_alive()}
        self._others.add(_thread(work))

    def remove(self, folder: Path) -> None:
        """Remove the folder, in nobody's time."""
        self.at_once(lambda: remove(folder))

    def close(self) -> None:
        """End all downloads, remove all files."""
        for files in list(self._jobs):
            files.close()
        for _ in self._pool:
            self._work.put(None)
        threads = {*self._pool, *self._others}
        for thread in threads:
            thread.join(END_S / len(threads))
        self._scratch.close()

    def _of(self, attempt: Attempt) -> JobFiles:
        with self._lock:
            if attempt.fetched is None:
                attempt.fetched = JobFiles(self)
                self._jobs.add(attempt.fetched)
            return attempt.fetched

    def _download(self, fetch: Fetch) -> None:
        from runpod_worker.net.download import download, guard  # 20 ms, which most workers need not spend

        download(
            fetch.source,
            fetch.path,
            most_bytes=fetch.most_bytes,
            timeout_s=self._settings.timeout_s,
            check=guard(private=self._settings.private),
            line=fetch.line,
            random=random.random,
        )

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _is_here(self, source: str) -> bool:
        return self._local and not sources.is_url(source) and os.path.isfile(source)  # noqa: PTH113 - never raises

    @property
    def _wanted(self) -> str:
        return f"the path of a file, {sources.WANTED}" if self._local else sources.WANTED


def _thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, name="runpod-worker-fetch", daemon=True)
    thread.start()
    return thread
