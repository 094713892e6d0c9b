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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runpod_worker.core.errors import ChannelClosed, OutputError
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.window import Account
from runpod_worker.worker.ipc.messages import File, FileFailed, ToAgent

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
        self._inbox: queue.SimpleQueue[_Pending | _Signal] = queue.SimpleQueue()
        self._permits = deque([True] * PENDING_LIMIT)  # no lock: a JobStopped may come at any line of the handler's
        self._thread: threading.Thread | None = None

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        name, kind = _named(name)
        read = _reader(content, name)
        store = attempt.run.files_url
        if store is None:
            return f"data:{kind};base64,{base64.b64encode(read()).decode()}"
        token = secrets.token_urlsafe(TOKEN_BYTES)
        attempt.files += 1
        pending = _Pending(attempt.key, attempt.account, token, name, kind, read)
        if self._permitted():
            self._start()
            self._inbox.put(pending)
        else:
            attempt.account.wait()
            self._store(pending)
        return f"{store}/{quote(attempt.id, safe='')}/{token}/{quote(name)}"

    def close(self) -> None:
        """Send what waits, end the thread."""
        if self._thread is not None:
            self._inbox.put(_Signal.CLOSE)
            self._thread.join()

    def _permitted(self) -> bool:
        try:
            return self._permits.pop()
        except IndexError:
            return False

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="runpod-worker-files", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """Encode and send; a file whose job has no credit waits, and no other job's file with it."""
        waiting: list[_Pending] = []
        news: _Pending | _Signal = _Signal.ROOM
        try:
            while news is not _Signal.CLOSE:
                news = self._inbox.get()
                if isinstance(news, _Pending):
                    waiting.append(news)
                waiting = self._sent(waiting, all_of_them=news is _Signal.CLOSE)
        except ChannelClosed:  # whoever reads the channel deals with it
            return

    def _sent(self, waiting: list[_Pending], *, all_of_them: bool) -> list[_Pending]:
        """Send what may be sent; the rest."""
        rest: list[_Pending] = []
        for pending in waiting:
            if all_of_them or pending.account.has_room:
                self._store(pending)
                self._permits.append(True)
            else:
                rest.append(pending)
        for account in {pending.account for pending in rest}:
            account.when_room(lambda: self._inbox.put(_Signal.ROOM))
        return rest

    def _store(self, pending: _Pending) -> None:
        message = pending.message()
        if isinstance(message, File):
            pending.account.file(len(message.body))
        self._send(message)


class _Signal(Enum):
    ROOM = "some job may send again"
    CLOSE = "nothing more comes"


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A file that was saved and not sent yet."""

    key: str
    account: Account
    token: str
    name: str
    kind: str
    read: Content

    def message(self) -> File | FileFailed:
        try:
            return File(self.key, self.token, self.name, self.kind, self.read())
        except Exception as error:
            text = f"job.save: {self.name} could not be encoded: {type(error).__name__}: {error}"
            return FileFailed(self.key, self.name, text)


class LocalFiles:
    """Files of a job without a job service: kept by `keep`, which gets name and content and returns the URL."""

    def __init__(self, keep: Callable[[str, bytes], str]) -> None:
        self._keep = keep

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        name, _ = _named(name)
        return self._keep(name, _reader(content, name)())

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
