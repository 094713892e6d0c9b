"""A lock file, so that a database belongs to one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.system import lock_file


def lock(path: Path) -> TextIO:
    """Hold the database for this process until the returned file is closed.

    Raises:
        StoreUnavailable: another process has it.
    """
    file = path.with_name(path.name + ".lock").open("a+")
    try:
        lock_file(file.fileno())
    except BlockingIOError:
        file.seek(0)
        process = file.read().strip() or "unknown"
        file.close()
        raise StoreUnavailable(
            f"{path} is in use by another process (id {process}); a store file belongs to one service"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
