"""Files that handlers save: what they may be, how they are encoded, where they go.

Nothing that the handler could still change is touched after `job.save` returned: bytes and files are read at once, a
picture is copied. Encoding a picture and sending it happen behind the handler's back.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import os
import queue
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runpod_worker.core.errors import ChannelClosed, OutputError
from runpod_worker.worker.frames import File, FileFailed, ToAgent
from runpod_worker.worker.running import Running

PENDING_LIMIT = 8
"""Pictures waiting to be encoded; one more is encoded in the handler's own time."""

TOKEN_BYTES = 16

_NAME = re.compile(r"[^/\\\0]{1,200}")
_FORMATS = {"JPG": "JPEG", "JPE": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000"}

Content = Callable[[], bytes]


class SavedFiles:
    """Files of jobs that a job service stores: sent to the agent, which uploads them. Without a store: `data:` URLs."""

    def __init__(self, send: Callable[[ToAgent], None]) -> None:
        self._send = send
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(PENDING_LIMIT)
        self._thread: threading.Thread | None = None

    def save(self, running: Running, content: Any, name: str) -> str:
        name, kind = _named(name)
        read = _reader(content, name)
        store = running.run.files_url
        if store is None:
            return f"data:{kind};base64,{base64.b64encode(read()).decode()}"
        token = secrets.token_urlsafe(TOKEN_BYTES)
        running.files += 1
        if self._room.acquire(blocking=False):
            self._start()
            self._work.put(lambda: self._behind(running.key, token, name, kind, read))
        else:
            self._send(_file(running.key, token, name, kind, read))
        return f"{store}/{quote(running.id, safe='')}/{token}/{quote(name)}"

    def close(self) -> None:
        """Send what waits, end the thread."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()

    def _behind(self, key: str, token: str, name: str, kind: str, read: Content) -> None:
        try:
            self._send(_file(key, token, name, kind, read))
        finally:
            self._room.release()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._encode, name="runpod-worker-files", daemon=True)
            self._thread.start()

    def _encode(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except ChannelClosed:  # whoever reads the channel deals with it
                return


class FolderFiles:
    """Files of a local run: written into a folder, the URL is the path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, running: Running, content: Any, name: str) -> str:
        name, _ = _named(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        path.write_bytes(_reader(content, name)())
        return str(path)

    def close(self) -> None:
        """Nothing is left to do."""


def _named(name: str) -> tuple[str, str]:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise OutputError(f"job.save: expected a plain file name such as out.png, got {name!r} ({type(name).__name__})")
    return name, mimetypes.guess_type(name)[0] or "application/octet-stream"


def _reader(content: Any, name: str) -> Content:
    """How to get the file's bytes later, from content that cannot change any more."""
    if isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
        return lambda: data
    if isinstance(content, str | os.PathLike):
        data = Path(content).read_bytes()
        return lambda: data
    if not callable(getattr(content, "save", None)):
        raise OutputError(
            f"job.save({name!r}): expected bytes, a path, a picture or anything with .save(file, format=...), "
            f"got a {type(content).__module__}.{type(content).__qualname__}"
        )
    if type(content).__module__.startswith("PIL."):
        picture = content.copy()
        return lambda: _encoded(picture, name)
    data = _encoded(content, name)
    return lambda: data


def _encoded(content: Any, name: str) -> bytes:
    suffix = Path(name).suffix.lstrip(".").upper()
    if not suffix:
        raise OutputError(f"job.save: {name!r} has no suffix such as .png, which would say the format")
    file = io.BytesIO()
    content.save(file, format=_FORMATS.get(suffix, suffix))
    return file.getvalue()


def _file(key: str, token: str, name: str, kind: str, read: Content) -> File | FileFailed:
    try:
        return File(key, token, name, kind, read())
    except Exception as error:
        return FileFailed(key, name, f"job.save: {name} could not be encoded: {type(error).__name__}: {error}")
