"""Where worker.yaml is. Reading it is a module of its own: a worker without the file need not import a YAML parser."""

from __future__ import annotations

from pathlib import Path

from runpod_worker.workerfile.model import WorkerFile

FILE_NAME = "worker.yaml"


def beside(handler: Path) -> WorkerFile:
    """The worker.yaml in `handler`'s folder, or one that says nothing when there is none."""
    return in_folder(handler.parent)


def in_folder(folder: Path) -> WorkerFile:
    """The worker.yaml in `folder`, or one that says nothing when there is none.

    Raises:
        SettingsError: it is not YAML, has a key nobody knows, or a value of the wrong type.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return WorkerFile()
    from runpod_worker.workerfile.reader import read

    return read(path)
