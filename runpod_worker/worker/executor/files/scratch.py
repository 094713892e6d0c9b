"""A temporary folder for the files of this process.

The process removes its folder when it exits. A killed process cannot: the next process finds a folder whose lock is
free, and removes it.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from runpod_worker.log import log
from runpod_worker.system import lock_folder

MAKING_PREFIX = "runpod-worker-making-"
PREFIX = "runpod-worker-files-"


class Scratch:
    """The folder of this process, made when it is first needed."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock_fd: int | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pid = os.getpid()

    def new_folder(self) -> Path:
        """A path for a new folder, which the caller makes."""
        with self._lock:
            if self._root is None:
                self._root, self._lock_fd = _make_root()
                atexit.register(self.close)
            return self._root / str(next(self._numbers))

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            if self._root is None or os.getpid() != self._pid:  # a forked child removes nothing
                return
            atexit.unregister(self.close)
            remove(self._root)
            if self._lock_fd is not None:
                os.close(self._lock_fd)
            self._root = None


def remove(folder: Path) -> None:
    """Remove a folder with everything in it, if it exists. Other threads may remove parts of it at the same time."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # another thread removed a part first
            continue
        except OSError as error:
            log.warning("files.not_removed", extra={"folder": str(folder), "error": str(error)})
            return


def sweep() -> None:
    """Remove the folders of dead processes."""
    for root in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):  # its process lives, it belongs to another user, or it was removed
            fd = lock_folder(root)
            if fd is None:
                return
            try:
                if os.fstat(fd).st_uid == os.getuid():
                    remove(root)
            finally:
                os.close(fd)


def _make_root() -> tuple[Path, int | None]:
    """A new folder, and the descriptor that holds its lock. It gets its final name once it is locked."""
    made = Path(tempfile.mkdtemp(prefix=MAKING_PREFIX))
    fd = lock_folder(made)
    return made.rename(made.with_name(PREFIX + made.name.removeprefix(MAKING_PREFIX))), fd
