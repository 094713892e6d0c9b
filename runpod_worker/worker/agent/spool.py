"""Outcomes on disk that the job service has not acknowledged, so that they outlive this process.

A spool is a directory per endpoint. Each process that writes owns a folder in it for as long as it lives (a lock on the
folder says so); the folders of processes that are gone are adopted by the next one. An entry is one file, readable by
its owner only, complete or not there at all: written beside, synced, renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from runpod_worker.core.errors import SpoolFull
from runpod_worker.log import log

SUFFIX = ".outcome"
CORRUPT = ".corrupt"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, or with a `content_type` one of the files it names, and where it goes."""

    target: str
    job_id: str
    attempt: int | None
    body: bytes
    content_type: str | None = None


class _Head(msgspec.Struct):
    target: str
    job_id: str
    attempt: int | None
    content_type: str | None
    size: int
    crc32: int


_heads = msgspec.json.Decoder(_Head)


class Spool:
    """The entries of one endpoint's workers on this machine. All methods block; any thread may call them."""

    def __init__(self, directory: Path, *, endpoint: str, most_bytes: int) -> None:
        """Nothing is touched before the first call. `endpoint` is what entries of one endpoint have in common."""
        self._directory = directory / hashlib.sha256(endpoint.encode()).hexdigest()[:16]
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._own: Path | None = None
        self._adopted: list[Path] = []
        self._locked: list[int] = []
        self._written = 0

    def write(self, entry: Entry) -> Path:
        """Keep the entry; when this returns, it survives a power cut.

        Raises:
            SpoolFull: more than `most_bytes` would be kept.
            OSError: the disk refuses.
        """
        size, crc32 = len(entry.body), zlib.crc32(entry.body)
        head = _Head(entry.target, entry.job_id, entry.attempt, entry.content_type, size, crc32)
        data = msgspec.json.encode(head) + b"\n" + entry.body
        with self._lock:
            if self._size() + len(data) > self._most_bytes:
                raise SpoolFull(f"{self._directory} holds its {self._most_bytes} bytes")
            folder = self._own or self._found()
            self._written += 1
            path = folder / f"{self._written:09}{SUFFIX}"
            _write(path, data)
        return path

    def remove(self, path: Path) -> None:
        """Forget an entry that was delivered."""
        path.unlink(missing_ok=True)

    def adopt(self) -> list[Path]:
        """The entries of processes that are gone, oldest first; from now on they are this process's to deliver."""
        with self._lock:
            return [path for folder in self._orphans() for path in sorted(folder.glob(f"*{SUFFIX}"))]

    def read(self, path: Path) -> Entry | None:
        """The entry, None (and a line in the log) when it cannot be used: it is put aside."""
        try:
            data = path.read_bytes()
            line, _, body = data.partition(b"\n")
            head = _heads.decode(line)
        except (OSError, msgspec.MsgspecError) as error:
            self._put_aside(path, str(error))
            return None
        if len(body) != head.size or zlib.crc32(body) != head.crc32:
            self._put_aside(path, f"expected {head.size} bytes with CRC {head.crc32}, found {len(body)}")
            return None
        return Entry(
            target=head.target, job_id=head.job_id, attempt=head.attempt, body=body, content_type=head.content_type
        )

    def close(self) -> None:
        """Release the folders, and remove those that are empty."""
        with self._lock:
            for folder in [self._own, *self._adopted]:
                if folder is not None:
                    with suppress(OSError):  # not empty: it is for the next process
                        folder.rmdir()
            for handle in self._locked:
                os.close(handle)
            self._locked.clear()

    def _found(self) -> Path:
        """Make this process's folder: locked before it gets the name under which others look for it."""
        name = uuid.uuid4().hex
        hidden = self._directory / f".{name}"
        hidden.mkdir(mode=0o700, parents=True)
        self._locked.append(_locked(hidden))
        self._own = hidden.rename(self._directory / name)
        _sync(self._directory)
        return self._own

    def _orphans(self) -> Iterator[Path]:
        for folder in self._folders():
            if folder == self._own:
                continue
            try:
                self._locked.append(_locked(folder))
            except OSError:  # its process is alive, or another one was faster
                continue
            self._adopted.append(folder)
            yield folder

    def _folders(self) -> list[Path]:
        try:
            found = [path for path in self._directory.iterdir() if path.is_dir() and not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def _size(self) -> int:
        return sum(path.stat().st_size for folder in self._folders() for path in folder.iterdir())

    def _put_aside(self, path: Path, reason: str) -> None:
        log.error("spool.corrupt", extra={"path": str(path), "error": reason})
        with suppress(OSError):
            path.rename(path.with_suffix(CORRUPT))


def _locked(folder: Path) -> int:
    """An open handle that holds the lock on the folder. Raises OSError when somebody else has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _write(path: Path, data: bytes) -> None:
    partial = path.with_suffix(".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
