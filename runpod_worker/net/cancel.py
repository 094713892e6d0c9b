"""The hold on a download that another thread has."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from runpod_worker.core.errors import DownloadFailed


class Line:
    """What a download is connected by. Any thread may cut it, wherever the download waits: it then fails at once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why it was cut."""
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def cut(self, reason: str) -> None:
        """End the download. The first reason counts."""
        with self._lock:
            self.reason = self.reason or reason
            if self._sock is not None:
                with suppress(OSError):  # it is not connected, or not any more
                    self._sock.shutdown(socket.SHUT_RDWR)
        self._cut.set()

    def hold(self, sock: socket.socket) -> None:
        """From now on this is the connection; a copy is held, because TLS takes the original away.

        Raises:
            DownloadFailed: the line was cut before.
        """
        with self._lock:
            self._drop()
            self.check()
            self._sock = sock.dup()

    def drop(self) -> None:
        """There is no connection any more."""
        with self._lock:
            self._drop()

    def check(self) -> None:
        """Raise DownloadFailed if the line was cut."""
        if self.reason is not None:
            raise DownloadFailed(self.reason)

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the line is cut."""
        self._cut.wait(seconds)

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
