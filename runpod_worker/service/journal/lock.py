"""A lock file, so that only one process uses a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.system import create_private, lock_file


def lock(path: Path) -> TextIO:
    """Lock the database for this process until the returned file is closed.

    Raises:
        StoreUnavailable: another process has the lock.
    """
    name = path.with_name(path.name + ".lock")
    create_private(name)
    file = name.open("a+")
    try:
        lock_file(file.fileno())
    except BlockingIOError:
        file.seek(0)
        process = file.read().strip() or "unknown"
        file.close()
        raise StoreUnavailable(
            f"{path} is in use by another process (id {process}); only one service may use a store file"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
