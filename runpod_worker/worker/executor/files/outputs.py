"""Saves files of handlers: validates, encodes and sends them.

`job.save` reads bytes and files immediately, and copies pictures, so the handler may change them afterwards. Encoding
and sending happen in the background.
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
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runpod_worker.core.errors import ChannelClosed, OutputError
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.window import FlowWindow
from runpod_worker.worker.ipc.messages import File, FileFailed, ToAgent

MAX_PENDING = 8
"""Files that may wait for encoding and sending. A thread that saves another one encodes and sends it itself."""

TOKEN_BYTES = 16

_NAME = re.compile(r"[^/\\\0]{1,200}")
_FORMATS = {"JPG": "JPEG", "JPE": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000"}

ReadContent = Callable[[], bytes]


class SavedFiles:
    """Saves files through the agent, which uploads them to the service. Without a file store: as `data:` URLs."""

    def __init__(self, send: Callable[[ToAgent], None]) -> None:
        self._send = send
        self._inbox: queue.SimpleQueue[_Pending | _Event] = queue.SimpleQueue()
        self._free = threading.Semaphore(MAX_PENDING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        """Send the file soon and return its URL."""
        name, content_type = _checked_name(name)
        read = _reader(content, name)
        store = attempt.files_url
        if store is None:
            return f"data:{content_type};base64,{base64.b64encode(read()).decode()}"
        token = secrets.token_urlsafe(TOKEN_BYTES)
        pending = _Pending(attempt.key, attempt.window, token, name, content_type, read)
        with self._lock:
            attempt.saved_files += 1
            self._start()
        if self._free.acquire(blocking=False):
            self._inbox.put(pending)
        else:
            attempt.window.wait()
            self._send_file(pending)
        return f"{store}/{quote(attempt.id, safe='')}/{token}/{quote(name)}"

    def close(self) -> None:
        """Send the waiting files, then end the thread."""
        if self._thread is not None:
            self._inbox.put(_Event.CLOSE)
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="runpod-worker-files", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Encode and send. A file waits for its own job's window only."""
        waiting: list[_Pending] = []
        event: _Pending | _Event = _Event.WINDOW_OPEN
        try:
            while event is not _Event.CLOSE:
                event = self._inbox.get()
                if isinstance(event, _Pending):
                    waiting.append(event)
                waiting = self._send_allowed(waiting, closing=event is _Event.CLOSE)
        except ChannelClosed:  # the thread that reads the channel ends the executor
            return

    def _send_allowed(self, waiting: list[_Pending], *, closing: bool) -> list[_Pending]:
        """Send the files whose window is open, or all; return the others."""
        blocked: list[_Pending] = []
        for pending in waiting:
            if closing or pending.window.is_open:
                self._send_file(pending)
                self._free.release()
            else:
                blocked.append(pending)
        for window in {pending.window for pending in blocked}:
            window.when_open(lambda: self._inbox.put(_Event.WINDOW_OPEN))
        return blocked

    def _send_file(self, pending: _Pending) -> None:
        message = pending.encode()
        if isinstance(message, File):
            pending.window.add(len(message.body))
        self._send(message)


class _Event(Enum):
    WINDOW_OPEN = "a job may send again"
    CLOSE = "no file follows"


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
        except Exception as error:
            text = f"job.save: {self.name} could not be encoded: {type(error).__name__}: {error}"
            return FileFailed(self.key, self.name, text)


class LocalFiles:
    """Saves files of a job without a job service through `keep`, which takes name and content and returns the URL."""

    def __init__(self, keep: Callable[[str, bytes], str]) -> None:
        self._keep = keep

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        """Keep the file and return its URL."""
        name, _ = _checked_name(name)
        return self._keep(name, _reader(content, name)())

    def close(self) -> None:
        """Do nothing, because every file is kept when it is saved."""


def _checked_name(name: str) -> tuple[str, str]:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise OutputError(f"job.save: expected a plain file name such as out.png, got {name!r} ({type(name).__name__})")
    return name, mimetypes.guess_type(name)[0] or "application/octet-stream"


def _reader(content: Any, name: str) -> ReadContent:
    """Return a function that encodes the file later, even if the handler changes `content` until then."""
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
        return lambda: _encode(picture, name)
    data = _encode(content, name)
    return lambda: data


def _encode(content: Any, name: str) -> bytes:
    suffix = Path(name).suffix.lstrip(".").upper()
    if not suffix:
        raise OutputError(f"job.save: {name!r} needs a suffix such as .png, which decides the format")
    file = io.BytesIO()
    content.save(file, format=_FORMATS.get(suffix, suffix))
    return file.getvalue()
