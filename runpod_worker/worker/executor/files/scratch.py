"""A folder for files that nobody needs after the process that made them.

It is removed when the process ends. One that was killed cannot do that: its folder is found by the next process, which
sees that nobody holds its lock any more.
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

MADE = "runpod-worker-making-"
PREFIX = "runpod-worker-files-"


class Scratch:
    """This process's folder; made when it is first needed."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._held: int | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._pid = os.getpid()

    def folder(self) -> Path:
        """A path for a new folder; it is not made yet."""
        with self._lock:
            if self._root is None:
                self._root, self._held = _new_root()
                atexit.register(self.close)
            return self._root / str(next(self._numbers))

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            if self._root is None or os.getpid() != self._pid:  # a fork has no say in this
                return
            atexit.unregister(self.close)
            remove(self._root)
            if self._held is not None:
                os.close(self._held)
            self._root = None


def remove(folder: Path) -> None:
    """Remove a folder with everything in it, if it is there. Others may be removing parts of it."""
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # somebody else was faster with a part of it
            continue
        except OSError as error:
            log.warning("files.not_removed", extra={"folder": str(folder), "error": str(error)})
            return


def sweep() -> None:
    """Remove the folders of processes that are gone."""
    for root in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):  # somebody else's, or gone by now
            handle = lock_folder(root)
            if handle is None:
                return
            try:
                if os.fstat(handle).st_uid == os.getuid():
                    remove(root)
            finally:
                os.close(handle)


def _new_root() -> tuple[Path, int | None]:
    """A folder of ours, and the descriptor that holds its lock; it gets the name that is swept when it has the lock."""
    made = Path(tempfile.mkdtemp(prefix=MADE))
    held = lock_folder(made)
    root = made.with_name(PREFIX + made.name.removeprefix(MADE))
    return made.rename(root), held
