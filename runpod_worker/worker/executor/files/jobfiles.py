"""The files that one job names: on their way, and in a folder of their own until the job has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from runpod_worker.core.errors import DownloadFailed, DownloadRefused, InputError
from runpod_worker.net.cancel import Line
from runpod_worker.worker.executor.files import sources

ENDED = "the job has ended"


class Fetch:
    """One file on its way. When it has ended, `error` is why it did not come."""

    def __init__(self, source: str, path: Path, most_bytes: int) -> None:
        self.source = source
        self.path = path
        self.most_bytes = most_bytes
        self.line = Line()
        self.ended = threading.Event()
        self.error: Exception | None = None

    def end(self, reason: str) -> None:
        """Wait for it no longer."""
        self.line.cut(reason)
        self.error = self.error or DownloadFailed(reason)
        self.ended.set()

    def complaint(self, place: str = "") -> Exception | None:
        """What to raise for it: the caller's fault in plain words, ours as it is."""
        error = self.error
        if isinstance(error, DownloadRefused | DownloadFailed):
            return InputError(f"{place}{sources.shown(self.source)}: {error}")
        if isinstance(error, ValueError):
            return InputError(f"{place}{error}")
        return error


class Home(Protocol):
    """Where the files of all jobs come from and go to."""

    most_bytes: int

    def folder(self) -> Path:
        """A path for a new folder."""

    def get(self, fetch: Fetch) -> None:
        """Write the file. Raises what goes wrong."""

    def ahead(self, work: Callable[[], None]) -> None:
        """Do it in another thread, in its turn."""

    def at_once(self, work: Callable[[], None]) -> None:
        """Do it in another thread."""

    def remove(self, folder: Path) -> None:
        """The folder is not needed any more."""


class JobFiles:
    """Every file is downloaded once, however often it is named. May be used from any thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._downloads: dict[str, Fetch] = {}
        self._then: Callable[[], None] | None = None
        self._busy = 0
        self._ended: str | None = None

    def path(self, source: str) -> Path:
        """Where the file will be when `start`ed downloads have ended."""
        with self._lock:
            return self._known(source, self._home.most_bytes).path

    def start(self, then: Callable[[], None]) -> None:
        """Download what is named so far; call `then` once, when all is there or nothing more is to be expected."""
        self._then = then
        for fetch in list(self._downloads.values()):
            self._home.ahead(lambda fetch=fetch: self._get(fetch))  # type: ignore[misc]

    def complaint(self, place: Callable[[str], str]) -> Exception | None:
        """What to raise when a file did not come; `place` tells by its source which field named it."""
        for fetch in list(self._downloads.values()):
            if fetch.error is not None:
                return fetch.complaint(place(fetch.source) + ": ")
        return None

    def fetch(self, source: str, limit: int | None) -> Path:
        """The file, when it is there. Raises what went wrong."""
        most_bytes = self._home.most_bytes if limit is None else min(limit, self._home.most_bytes)
        with self._lock:
            known = self._downloads.get(source)
            fetch = self._known(source, most_bytes)
        if fetch is not known:
            self._home.at_once(lambda: self._get(fetch))
        fetch.ended.wait()
        if complaint := fetch.complaint():
            raise complaint
        if (size := fetch.path.stat().st_size) > most_bytes:
            raise InputError(f"{sources.shown(source)}: expected at most {most_bytes} bytes, got {size}")
        return fetch.path

    def stop(self, reason: str) -> None:
        """Nobody may wait for these files any longer."""
        with self._lock:
            self._ended = self._ended or reason
            downloads = [fetch for fetch in self._downloads.values() if not fetch.ended.is_set()]
        for fetch in downloads:
            fetch.end(reason)
        self._call_then()

    def close(self) -> None:
        """The job has ended: its files are removed, when the last download has noticed."""
        self.stop(ENDED)
        with self._lock:
            idle = not self._busy and self._folder is not None
        if idle:
            self._remove()

    def _known(self, source: str, most_bytes: int) -> Fetch:
        """The download of this source: the one there is, or, had that failed, a new one."""
        fetch = self._downloads.get(source)
        if fetch is not None and fetch.error is None:
            return fetch
        if self._ended is not None:
            raise DownloadFailed(self._ended)
        self._folder = self._folder or self._home.folder()
        path = self._folder / str(len(self._downloads)) / sources.name_of(source)
        fetch = self._downloads[source] = Fetch(source, path, most_bytes)
        return fetch

    def _get(self, fetch: Fetch) -> None:
        with self._lock:
            if fetch.ended.is_set():
                return
            self._busy += 1
        try:
            fetch.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._home.get(fetch)
        except Exception as error:  # told to whoever needs the file
            fetch.error = error
        fetch.ended.set()
        with self._lock:
            self._busy -= 1
            last = not self._busy and self._ended == ENDED
            more = fetch.error is None and any(not one.ended.is_set() for one in self._downloads.values())
        if last:
            self._remove()
        elif not more:
            self._call_then()

    def _call_then(self) -> None:
        with self._lock:
            then, self._then = self._then, None
        if then is not None:
            then()

    def _remove(self) -> None:
        with self._lock:
            folder, self._folder = self._folder, None
        if folder is not None:
            self._home.remove(folder)
