"""Saves files of handlers: validates, encodes and sends them.

`job.save` reads bytes and files immediately, and copies pictures, so the handler may change them afterwards. Encoding
and sending happen in the background.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from runpod_worker.core.dispatch.messages import File, FileFailed, FilePart, ToAgent
from runpod_worker.core.errors import ChannelClosed, OutputError
from runpod_worker.core.filename import EXPECTED_FILE_NAME, describe_file_name, is_file_name
from runpod_worker.core.protocol import MIB
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.window import FlowWindow

MAX_PENDING = 8
"""Files that may wait to be encoded and sent. At the limit, the thread that saves a file does both itself."""

PART_BYTES = 8 * MIB
"""A larger file travels in parts of this size: a message has a limit, and other jobs' messages go in between."""

TOKEN_BYTES = 16

_FORMATS = {"JPG": "JPEG", "JPE": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000"}

ReadContent = Callable[[], bytes]


class SavedFiles:
    """Saves files through the agent, which uploads them. If the service has no file store, returns `data:` URLs.

    In a run without an agent `keep` keeps them: it takes name and content and returns the URL.
    """

    def __init__(self, send: Callable[[ToAgent], None], keep: Callable[[str, bytes], str] | None = None) -> None:
        self._send = send
        self._keep = keep
        self._pool = ThreadPoolExecutor(1, "runpod-worker-files")
        self._free = threading.Semaphore(MAX_PENDING)
        self._pending: list[_Pending] = []
        self._lock = threading.Lock()

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        """Send the file soon and return its URL."""
        name, content_type = _checked_name(name)
        read = _reader(content, name, attempt.max_file_bytes)
        if self._keep is not None:
            return self._keep(name, read())
        store = attempt.files_url
        if store is None:
            return f"data:{content_type};base64,{base64.b64encode(read()).decode()}"
        token = secrets.token_urlsafe(TOKEN_BYTES)
        pending = _Pending(attempt.key, attempt.window, token, name, content_type, read)
        with self._lock:
            attempt.saved_files += 1
        if self._free.acquire(blocking=False):
            self._pending.append(pending)
            self._submit(pending)
        else:
            attempt.window.wait()
            self._send_file(pending)
        return f"{store}/{quote(attempt.id, safe='')}/{token}/{quote(name)}"

    def close(self) -> None:
        """Send the pending files, then end the thread."""
        self._pool.shutdown()
        with suppress(ChannelClosed):  # the thread that reads the channel ends the executor
            for pending in self._pending:
                self._send_file(pending)
        self._pending.clear()

    def _submit(self, pending: _Pending) -> None:
        with suppress(RuntimeError):  # the pool is closed, so `close` sends the file
            self._pool.submit(self._send_when_open, pending)

    def _send_when_open(self, pending: _Pending) -> None:
        """Encode and send the file, once its own job's window is open."""
        if not pending.window.is_open:
            pending.window.when_open(lambda: self._submit(pending))
            return
        self._pending.remove(pending)
        self._send_file(pending)
        self._free.release()

    def _send_file(self, pending: _Pending) -> None:
        message = pending.encode()
        if isinstance(message, File):
            body = memoryview(message.body)
            pending.window.add(len(body))
            while len(body) > PART_BYTES:
                self._send(FilePart(message.key, message.token, bytes(body[:PART_BYTES])))
                body = body[PART_BYTES:]
            if len(body) < len(message.body):
                message = msgspec.structs.replace(message, body=bytes(body))
        self._send(message)


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A saved file that is not sent yet."""

    key: str
    window: FlowWindow
    token: str
    name: str
    content_type: str
    read: ReadContent

    def encode(self) -> File | FileFailed:
        try:
            return File(self.key, self.token, self.name, self.content_type, self.read())
        except OutputError as error:
            return FileFailed(self.key, self.name, str(error))
        except Exception as error:
            text = f"job.save: {self.name} could not be encoded: {type(error).__name__}: {error}"
            return FileFailed(self.key, self.name, text)


def _checked_name(name: str) -> tuple[str, str]:
    if not is_file_name(name):
        raise OutputError(f"job.save: expected {EXPECTED_FILE_NAME}, got {describe_file_name(name)}")
    return name, mimetypes.guess_type(name)[0] or "application/octet-stream"


def _reader(content: Any, name: str, max_bytes: int | None) -> ReadContent:
    """Return a function that encodes the file later, even if the handler has changed `content` by then.

    A file that is too large is refused now, except a picture, which is encoded later.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        _check_size(memoryview(content).nbytes, name, max_bytes)
        data = bytes(content)
        return lambda: data
    if isinstance(content, str | os.PathLike):
        _check_size(Path(content).stat().st_size, name, max_bytes)
        data = Path(content).read_bytes()
        return lambda: data
    if not callable(getattr(content, "save", None)):
        raise OutputError(
            f"job.save({name!r}): expected bytes, a path, a picture or anything with .save(file, format=...), "
            f"got a {type(content).__module__}.{type(content).__qualname__}"
        )
    if type(content).__module__.startswith("PIL."):
        picture = content.copy()
        return lambda: _encode(picture, name, max_bytes)
    data = _encode(content, name, max_bytes)
    return lambda: data


def _encode(content: Any, name: str, max_bytes: int | None) -> bytes:
    suffix = Path(name).suffix.lstrip(".").upper()
    if not suffix:
        raise OutputError(f"job.save: {name!r} needs a suffix such as .png, which decides the format")
    file = io.BytesIO()
    content.save(file, format=_FORMATS.get(suffix, suffix))
    _check_size(file.tell(), name, max_bytes)
    return file.getvalue()


def _check_size(size: int, name: str, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise OutputError(
            f"job.save: {name} has {size} bytes; the job service stores at most {max_bytes} "
            "(its setting RUNPOD_SERVICE_MAX_FILE_BYTES)"
        )
