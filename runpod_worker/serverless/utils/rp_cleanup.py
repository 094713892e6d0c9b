"""Removes the files of jobs from the working directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

FOLDERS = ("input_objects", "output_objects", "job_files", "jobs")
"""`jobs` is where `download_files_from_urls` writes."""


def clean(folder_list: Iterable[str | PathLike[str]] | None = None) -> None:
    """Remove output.zip, the folders that the helpers of this package write to, and `folder_list`."""
    for folder in (*FOLDERS, *(folder_list or ())):
        shutil.rmtree(folder, ignore_errors=True)
    Path("output.zip").unlink(missing_ok=True)
