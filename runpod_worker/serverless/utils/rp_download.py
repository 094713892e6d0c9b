"""Download files that a job names (protocol C.9), from public addresses only."""

from __future__ import annotations

import shutil
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import DownloadFailed
from runpod_worker.log import log

from .rp_ssrf import SSRFError, max_download_bytes, parts_of, safe_get

HEADERS = {"User-Agent": "runpod-worker"}
TIMEOUT_S = 30.0
TRIES = 3
PAUSE = Backoff(base_s=0.5, cap_s=5.0)
MOST_FILES = 100_000
"""Files in one archive."""


def download_files_from_urls(
    job_id: str, urls: str | Sequence[str | None] | None, *, sleep: Callable[[float], None] = time.sleep
) -> list[str | None]:
    """Download the files into jobs/<job_id>/downloaded_files, several at once.

    Returns absolute paths, in order; None for what could not be downloaded in three tries.

    Raises:
        SSRFError: a URL leads to a private address, or a file is larger than RUNPOD_MAX_DOWNLOAD_BYTES.
    """
    folder = (Path("jobs") / _one_name(job_id) / "downloaded_files").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    listed = [urls] if urls is None or isinstance(urls, str) else list(urls)

    def download(url: str | None) -> str | None:
        return None if url is None else _tried(url, folder, sleep)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(download, listed))


def file(file_url: str) -> dict[str, Any]:
    """Download one file into job_files, and extract it when it is a zip archive.

    Returns "file_path", "type" (the suffix without its dot), "original_name" and "extracted_path" (None: no archive).

    Raises:
        SSRFError: the URL leads to a private address, or the file or its extracted contents are too large.
        OSError: the server does not deliver the file, or it is no archive although it is named .zip.
    """
    folder = Path("job_files").absolute()
    folder.mkdir(exist_ok=True)
    stem = str(uuid.uuid4())
    with safe_get(file_url, timeout=TIMEOUT_S, headers=HEADERS) as response:
        name = _named_file(response) or PurePosixPath(unquote(urlsplit(file_url).path)).name
        kind = _suffix(name).removeprefix(".")
        path = folder / f"{stem}.{kind}"
        _write(response, path)
    extracted = _extracted_or_removed(path, folder / stem) if kind == "zip" else None
    return {"file_path": str(path), "type": kind, "original_name": name, "extracted_path": extracted}


def _tried(url: str, folder: Path, sleep: Callable[[float], None]) -> str | None:
    for number in range(TRIES):
        try:
            return _downloaded(url, folder)
        except SSRFError:
            raise
        except OSError as error:
            log.warning("download.failed", extra={"host": urlsplit(url).hostname, "error": str(error)})
        if number + 1 < TRIES:
            sleep(PAUSE.ceiling(number))
    return None


def _downloaded(url: str, folder: Path) -> str:
    with safe_get(url, timeout=TIMEOUT_S, headers=HEADERS) as response:
        suffix = _suffix(_named_file(response)) or _suffix(urlsplit(url).path)
        path = folder / f"{uuid.uuid4()}{suffix}"
        _write(response, path)
    return str(path)


def _write(response: aiohttp.ClientResponse, path: Path) -> None:
    try:
        with path.open("wb") as target:
            for part in parts_of(response, max_download_bytes()):
                target.write(part)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _named_file(response: aiohttp.ClientResponse) -> str:
    """The file's name in Content-Disposition, without folders."""
    header = Message()
    header["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    return PurePosixPath((header.get_filename() or "").replace("\\", "/")).name


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix[1:].isalnum() else ""


def _one_name(job_id: str) -> str:
    if job_id in ("", ".", "..") or any(sign in job_id for sign in "/\\\0"):
        raise ValueError(f"job_id: expected the name of one folder, got {job_id!r}")
    return job_id


def _extracted_or_removed(path: Path, folder: Path) -> str:
    """Extract an archive; remove it, and what was extracted, if that fails."""
    try:
        return _extracted(path, folder)
    except BaseException as error:
        path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, SSRFError | OSError) or not isinstance(error, Exception):
            raise
        raise DownloadFailed(f"the file is not a zip archive that can be extracted: {error}") from error


def _extracted(path: Path, folder: Path) -> str:
    """Extract an archive. Raises SSRFError when its contents exceed the limits."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        size, most = sum(info.file_size for info in infos), max_download_bytes()
        if size > most or len(infos) > MOST_FILES:
            raise SSRFError(f"the archive holds {len(infos)} files of {size} bytes; at most {MOST_FILES} and {most}")
        folder.mkdir()
        archive.extractall(folder)
    return str(folder)
