"""Finds worker.yaml. The reader is a separate module, so that a worker without the file imports no YAML parser."""

from __future__ import annotations

from pathlib import Path

from runpod_worker.workerfile.model import WorkerFile

FILE_NAME = "worker.yaml"


def load_beside(handler: Path) -> WorkerFile:
    """Load the worker.yaml in `handler`'s folder, or return an empty one if there is none."""
    return load_folder(handler.parent)


def load_folder(folder: Path) -> WorkerFile:
    """Load the worker.yaml in `folder`, or return an empty one if there is none.

    Raises:
        SettingsError: it is not YAML, or has an unknown key or a value of the wrong type.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return WorkerFile()
    from runpod_worker.workerfile.reader import read

    return read(path)
