"""Reports on disk that the job service has not acknowledged, so that they outlive this process.

A spool is a directory per endpoint. Each process that writes has a folder in it, locked while it runs. The next
process adopts the folders of processes that have ended. A report is one file that only its owner may read. It is
either complete or absent: written under another name, synced, renamed.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from runpod_worker.core.errors import SpoolFull
from runpod_worker.log import log
from runpod_worker.system import lock_folder, sync_folder

SUFFIX = ".outcome"
CORRUPT_SUFFIX = ".corrupt"
PARTIAL_SUFFIX = ".partial"


class FileName(msgspec.Struct, frozen=True):
    """The name and the type under which the service stores an output file."""

    token: str
    name: str
    content_type: str


class SpooledReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an attempt, or with `file` one of the files it names.

    `worker_id`: the worker that ran the attempt; None for this one.
    """

    job_id: str
    attempt: int | None
    body: bytes
    is_stream: bool = False
    worker_id: str | None = None
    file: FileName | None = None


class _Head(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line of a file. Version 0.1 wrote a URL, `target`, in place of the fields after it."""

    job_id: str
    attempt: int | None
    size: int
    crc32: int
    target: str | None = None
    content_type: str | None = None
    is_stream: bool = False
    worker_id: str | None = None
    file: FileName | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_V01_WORKER = re.compile(r"/job-done/([^/]+)/[^/]+$")


class Spool:
    """The reports of one endpoint's workers on this machine. All methods block; any thread may call them."""

    def __init__(
        self,
        directory: Path,
        *,
        endpoint: str,
        max_bytes: int,
        now: Callable[[], float] = time.time,  # noqa: TID251 - compared with the times of files
    ) -> None:
        """Access no file before the first call. Each `endpoint` has its own reports."""
        self._directory = directory / hashlib.sha256(endpoint.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._now = now
        self._lock = threading.Lock()
        self._own: Path | None = None
        self._adopted: list[Path] = []
        self._locked: list[int] = []
        self._written = 0

    def write(self, report: SpooledReport) -> Path:
        """Write the report; when this returns, it survives a power cut.

        Raises:
            SpoolFull: the spool would hold more than `max_bytes`.
            OSError: the report could not be written.
        """
        head = _Head(
            job_id=report.job_id,
            attempt=report.attempt,
            size=len(report.body),
            crc32=zlib.crc32(report.body),
            is_stream=report.is_stream,
            worker_id=report.worker_id,
            file=report.file,
        )
        data = msgspec.json.encode(head) + b"\n" + report.body
        with self._lock:
            if self._size() + len(data) > self._max_bytes:
                raise SpoolFull(f"{self._directory} holds its {self._max_bytes} bytes")
            folder = self._own or self._create_folder()
            self._written += 1
            path = folder / f"{self._written:09}{SUFFIX}"
            _write(path, data)
        return path

    def remove(self, path: Path) -> None:
        """Remove a report that was delivered. Log a failure: the next process then sends the report again."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log_failure(path, error)

    def age_s(self, path: Path) -> float:
        """Return the seconds since the report was written; infinity if it cannot be read."""
        try:
            return self._now() - path.stat().st_mtime
        except OSError:
            return math.inf

    def adopt(self) -> list[Path]:
        """Return the reports of processes that have ended, oldest first. From now on this process delivers them."""
        with self._lock:
            return [path for folder in self._orphans() for path in sorted(folder.glob(f"*{SUFFIX}"))]

    def read(self, path: Path) -> SpooledReport | None:
        """Return the report. Log and return None for a report that cannot be read; rename it if it is corrupt."""
        try:
            line, _, body = path.read_bytes().partition(b"\n")
            head = _decode_head(line)
        except OSError as error:
            _log_failure(path, error)
            return None
        except msgspec.MsgspecError as error:
            self._reject(path, str(error))
            return None
        if len(body) != head.size or zlib.crc32(body) != head.crc32:
            self._reject(path, f"expected {head.size} bytes with CRC {head.crc32}, found {len(body)}")
            return None
        if head.target is not None:
            return _from_v01(head, head.target, body)
        return SpooledReport(
            job_id=head.job_id,
            attempt=head.attempt,
            body=body,
            is_stream=head.is_stream,
            worker_id=head.worker_id,
            file=head.file,
        )

    def close(self) -> None:
        """Unlock the folders, and remove the empty ones."""
        with self._lock:
            for folder in [self._own, *self._adopted]:
                if folder is not None:
                    with suppress(OSError):  # not empty, so the next process adopts it
                        folder.rmdir()
            for handle in self._locked:
                os.close(handle)
            self._locked.clear()

    def _create_folder(self) -> Path:
        """Create this process's folder, and lock it before it gets the name that other processes look for."""
        name = uuid.uuid4().hex
        hidden = self._directory / f".{name}"
        hidden.mkdir(mode=0o700, parents=True)
        try:
            self._hold(hidden)
            self._own = hidden.rename(self._directory / name)
        except OSError:
            hidden.rmdir()
            raise
        sync_folder(self._directory)
        return self._own

    def _hold(self, folder: Path) -> None:
        """Lock the folder for this process. Raises OSError when another process holds it."""
        if (handle := lock_folder(folder)) is not None:
            self._locked.append(handle)

    def _orphans(self) -> Iterator[Path]:
        for folder in self._folders():
            if folder == self._own:
                continue
            try:
                self._hold(folder)
            except OSError:  # its process is alive, or another process adopted it first
                continue
            self._adopted.append(folder)
            for path in folder.glob(f"*{PARTIAL_SUFFIX}"):  # its process was killed while it wrote
                self.remove(path)
            yield folder

    def _folders(self) -> list[Path]:
        folders = [
            (status.st_mtime, path)
            for path, status in _entries(self._directory)
            if stat.S_ISDIR(status.st_mode) and not path.name.startswith(".")
        ]
        return [path for _, path in sorted(folders)]

    def _size(self) -> int:
        return sum(status.st_size for folder in self._folders() for _, status in _entries(folder))

    def _reject(self, path: Path, reason: str) -> None:
        log.error("spool.rejected", extra={"path": str(path), "error": reason})
        with suppress(OSError):
            path.rename(path.with_suffix(CORRUPT_SUFFIX))


def _from_v01(head: _Head, target: str, body: bytes) -> SpooledReport:
    """Parse the report from the URL that version 0.1 stored."""
    url = urlsplit(target)
    if head.content_type is not None:
        token, name = (unquote(part) for part in url.path.split("/")[-2:])
        file = FileName(token, name, head.content_type)
        return SpooledReport(job_id=head.job_id, attempt=head.attempt, body=body, file=file)
    worker = _V01_WORKER.search(url.path)
    return SpooledReport(
        job_id=head.job_id,
        attempt=head.attempt,
        body=body,
        is_stream="isStream=true" in url.query,
        worker_id=None if worker is None else unquote(worker[1]),
    )


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The entries of the folder, without those that cannot be read or that another process removes meanwhile."""
    try:
        for path in folder.iterdir():
            with suppress(OSError):
                yield path, path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        _log_failure(folder, error)


def _log_failure(path: Path, error: OSError) -> None:
    log.error("spool.failed", extra={"path": str(path), "error": str(error)})


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(PARTIAL_SUFFIX)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException:  # a part would fill the spool, and a whole report would be sent although nobody owns it
        for left in (partial, path):
            with suppress(OSError):
                left.unlink(missing_ok=True)
        raise
