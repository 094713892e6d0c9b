"""Output files of jobs: a worker stores them, and callers fetch them by a URL that cannot be guessed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from runpod_worker.core.errors import BadRequest, StoreUnavailable, TooLarge
from runpod_worker.core.filename import EXPECTED_FILE_NAME, describe_file_name, is_file_name
from runpod_worker.log import log
from runpod_worker.system import make_private_folder, sync_folder

SERVE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "private, max-age=31536000, immutable",
}
"""Sent with every file: content that a worker wrote must not run as a page of this service."""

DEFAULT_TYPE = "application/octet-stream"

WRITE_BYTES = 2**20
"""Content is collected up to this size before it is written, since each write costs a hop to a thread."""

_JOB = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}", re.ASCII)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_UNQUOTABLE = re.compile(r"[^ !#$&-\[\]-~]")
_TYPE = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(; ?charset=[A-Za-z0-9_-]{1,40})?", re.ASCII
)


class FileName(msgspec.Struct, frozen=True, kw_only=True):
    """Names one file. The token is the capability: every caller that knows it may read the file."""

    job_id: str
    token: str
    name: str

    def __post_init__(self) -> None:
        _check("job", _JOB, self.job_id, "1 to 128 characters of A-Z a-z 0-9 _ -")
        _check("token", _TOKEN, self.token, "22 to 128 characters of A-Z a-z 0-9 _ -")
        if not is_file_name(self.name):
            raise BadRequest(f"name: expected {EXPECTED_FILE_NAME}, got {describe_file_name(self.name)}")


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file on this machine."""

    path: Path
    content_type: str


class FolderFiles:
    """Keeps output files in a folder: `job/token/name`, and beside it `.name.type` with the content type.

    A hash stands for a name that is long or has unusual characters.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    async def put(self, name: FileName, content_type: str, data: AsyncIterable[bytes], *, limit: int) -> None:
        """Store the file, on disk when this returns. A file of the same name is replaced as a whole.

        Raises:
            TooLarge: there are more than `limit` bytes; the file is not stored.
            StoreUnavailable: the file cannot be written, and is not stored.
        """
        target = self._path(name)
        try:
            part, out = await asyncio.to_thread(_create, target)
            try:
                await _copy(data, out, limit)
                await asyncio.to_thread(_publish, out, part, target, clean_type(content_type))
            except BaseException:
                out.close()
                part.unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise StoreUnavailable(f"the file {name.name} cannot be written: {exc.strerror}") from exc

    async def open(self, name: FileName) -> StoredFile | None:
        """Return the file, None if there is none."""
        return await asyncio.to_thread(_find, self._path(name))

    async def sweep(self, written_before: float) -> None:
        """Delete the files last written before this time (seconds since the epoch)."""
        await asyncio.to_thread(_sweep, self._root, written_before)

    def _path(self, name: FileName) -> Path:
        return self._root / name.job_id / name.token / _disk_name(name.name)


def clean_type(content_type: str) -> str:
    """Return the content type if it may be sent as a header, else the type of unknown bytes."""
    return content_type if _TYPE.fullmatch(content_type) else DEFAULT_TYPE


def content_disposition(kind: str, name: str) -> str:
    """Return the header for a file of this name (RFC 6266); old clients read the name without unusual characters."""
    plain = _UNQUOTABLE.sub("_", name)
    encoded = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{encoded}'


def _check(field: str, pattern: re.Pattern[str], value: str, expected: str) -> None:
    if not pattern.fullmatch(value):
        raise BadRequest(f"{field}: expected {expected}, got {value[:40]!r}")


def _disk_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else f"={hashlib.sha256(name.encode()).hexdigest()}"


def _type_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.type")


async def _copy(data: AsyncIterable[bytes], out: BinaryIO, limit: int) -> None:
    size, unwritten = 0, bytearray()
    async for piece in data:
        size += len(piece)
        if size > limit:
            raise TooLarge.over(limit)
        unwritten += piece
        if len(unwritten) >= WRITE_BYTES:
            await asyncio.to_thread(out.write, unwritten)
            unwritten = bytearray()
    await asyncio.to_thread(out.write, unwritten)


def _create(target: Path) -> tuple[Path, BinaryIO]:
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    while True:
        try:
            make_private_folder(target.parent)
            return part, part.open("xb")
        except FileNotFoundError:  # a sweep removed the empty folder in between
            continue


def _publish(out: BinaryIO, part: Path, target: Path, content_type: str) -> None:
    out.flush()
    os.fsync(out.fileno())
    out.close()
    kind = part.with_suffix(".kind")
    kind.write_text(content_type, encoding="ascii")
    kind.replace(_type_path(target))
    part.replace(target)
    for folder in (target.parent, target.parent.parent, target.parent.parent.parent):
        sync_folder(folder)


def _find(path: Path) -> StoredFile | None:
    if not path.is_file():
        return None
    try:
        content_type = clean_type(_type_path(path).read_text(encoding="ascii"))
    except FileNotFoundError:
        content_type = DEFAULT_TYPE
    return StoredFile(path=path, content_type=content_type)


def _sweep(root: Path, written_before: float) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for path in [Path(folder, name) for name in names]:
            try:
                if path.lstat().st_mtime < written_before:
                    path.unlink()
            except FileNotFoundError:  # renamed or deleted since the folder was listed
                continue
            except OSError as exc:
                log.warning("file.kept", extra={"path": str(path), "error": str(exc)})
        if Path(folder) != root:
            with contextlib.suppress(OSError):  # not empty, or a worker has begun to write into it
                Path(folder).rmdir()
