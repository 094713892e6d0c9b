"""Keeps a copy of local folders on the network volume, which saves the next worker a download (protocol C.9).

The copy is `{volume}/.cache/{namespace}/`: `small.tar` (files under 256 KiB, whose metadata would cost more than their
bytes), `big/` (the others, under their own paths), and `manifest.json`, the list of both, written last.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from runpod_worker.config import worker_settings
from runpod_worker.log import log

MTIME_TOLERANCE_S = 2.0
"""Network file systems round modification times."""

EXIT_TIMEOUT_S = 30.0
"""How long the exit of the process waits for running copies."""

SMALL_BYTES = 256 * 1024
VERSION = 1
_TEMPORARY = ".rpvc.tmp"
_SKIPPED = ("/refs/", "/.no_exist/")

T = TypeVar("T")
Folder = str | bytes | os.PathLike[str]


class File(msgspec.Struct, frozen=True):
    """A file in the manifest."""

    path: str
    size: int
    mtime: float


class Manifest(msgspec.Struct):
    """The files on the volume."""

    version: int = VERSION
    threshold: int = SMALL_BYTES
    small: list[File] = []
    big: list[File] = []


class VolumeCache:
    """As a context manager: copies files from the volume at the start, and new files to it at the end.

    with VolumeCache(dirs=["/root/.cache/huggingface"]):
        model = load_model()

    Args:
        dirs: folders to copy.
        namespace: the name of the copy, one path component; the endpoint's id by default.
        volume_path: where the volume is mounted. Without a volume or a namespace the cache does nothing.
        best_effort: log errors instead of raising them.
        max_workers: number of large files to copy in parallel.
    """

    def __init__(
        self,
        dirs: Folder | Iterable[Folder],
        *,
        namespace: str | None = None,
        volume_path: Folder = "/runpod-volume",
        best_effort: bool = True,
        max_workers: int | None = None,
    ) -> None:
        is_single = isinstance(dirs, str | bytes | os.PathLike)
        folders: Iterable[Folder] = [dirs] if is_single else dirs  # type: ignore[list-item,assignment]
        self._dirs = [Path(os.fsdecode(folder)).resolve() for folder in folders]
        self._namespace = namespace or worker_settings().endpoint_id or ""
        if self._namespace in (".", "..") or any(sign in self._namespace for sign in "/\\\0"):
            raise ValueError(f"namespace must be a single safe path component, got {self._namespace!r}")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be a positive integer, got {max_workers!r}")
        self._volume = Path(os.fsdecode(volume_path))
        self._best_effort = best_effort
        self._max_workers = max_workers or min(32, (os.cpu_count() or 4) * 4)
        self._root = self._volume / ".cache" / self._namespace
        self._big = self._root / "big"

    def __enter__(self) -> VolumeCache:
        self.hydrate()
        return self

    def __exit__(self, *error: object) -> None:
        self.sync()

    @property
    def available(self) -> bool:
        """Whether a volume and a namespace exist."""
        return bool(self._namespace) and self._volume.is_dir()

    def hydrate(self) -> int:
        """Copy files from the volume that are missing or older here; return their number."""
        return self._guarded(self._hydrate, 0) if self.available else 0

    def sync(self, *, background: bool = True) -> None:
        """Copy files to the volume that are missing or older there. The process waits for background copies at exit."""
        if not self.available:
            return
        if not background:
            self._guarded(self._sync, None)
            return
        thread = threading.Thread(target=self._guarded, args=(self._sync, None), name="volume-cache", daemon=True)
        _pending.append(thread)
        thread.start()

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except Exception:
            if not self._best_effort:
                raise
            log.exception("volume_cache.failed")
            return otherwise

    # ---------------------------------------------------------------- from the volume

    def _hydrate(self) -> int:
        manifest = self._manifest()
        if manifest is None:
            return 0
        count = self._unpack() if manifest.small else 0
        pairs = [(self._on_volume(Path(file.path)), Path(file.path)) for file in manifest.big]
        # The volume is shared, so do not trust the manifest: source and target must stay inside their folders.
        safe = [(source, here) for source, here in pairs if _inside(source, [self._big]) and _inside(here, self._dirs)]
        copied, _ = self._copy(safe)
        log.info("volume_cache.hydrated", extra={"files": count + len(copied)})
        return count + len(copied)

    def _unpack(self) -> int:
        count = 0
        with tarfile.open(self._root / "small.tar") as archive:
            for member in archive:
                target = Path("/", member.name)
                if not member.isfile() or not _inside(target, self._dirs):
                    continue
                if _stale(target, member.size, member.mtime):
                    archive.extract(member, "/", filter="data")
                    count += 1
        return count

    # ---------------------------------------------------------------- to the volume

    def _sync(self) -> None:
        before = self._manifest() or Manifest()
        files = list(self._files())
        small = [file for file in files if file.size < SMALL_BYTES]
        if _differ(small, before.small):
            self._pack(small)
        big = [file for file in files if file.size >= SMALL_BYTES]
        copied, current = self._copy([(Path(file.path), self._on_volume(Path(file.path))) for file in big])
        kept = [file for file in big if Path(file.path) in copied | current]
        self._replace(self._root / "manifest.json", msgspec.json.encode(Manifest(small=small, big=kept)))
        log.info("volume_cache.synced", extra={"files": len(copied), "small": len(small)})

    def _pack(self, files: list[File]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        target = self._root / "small.tar"
        part = _part(target)
        with tarfile.open(part, "w") as archive:
            for file in files:
                archive.add(file.path, recursive=False)
        part.replace(target)

    def _files(self) -> Iterator[File]:
        for folder in self._dirs:
            for path in sorted(folder.rglob("*")):
                name = str(path)
                if name.endswith((".lock", _TEMPORARY)) or any(part in name for part in _SKIPPED):
                    continue
                if path.is_file() and not path.is_symlink():
                    stat = path.stat()
                    yield File(name, stat.st_size, stat.st_mtime)

    # ---------------------------------------------------------------- both ways

    def _on_volume(self, path: Path) -> Path:
        return self._big / path.relative_to(path.anchor)

    def _copy(self, pairs: list[tuple[Path, Path]]) -> tuple[set[Path], set[Path]]:
        """Copy the outdated pairs; return the copied sources and the sources that were current."""
        todo = [(source, target) for source, target in pairs if _outdated(source, target)]
        current = {source for source, _ in pairs} - {source for source, _ in todo}
        with ThreadPoolExecutor(max_workers=self._max_workers) as pool:
            results = list(pool.map(lambda pair: _copy_file(*pair), todo))
        return {source for (source, _), copied in zip(todo, results, strict=True) if copied}, current

    def _manifest(self) -> Manifest | None:
        try:
            manifest = msgspec.json.decode((self._root / "manifest.json").read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError):
            return None
        return manifest if manifest.version == VERSION else None

    @staticmethod
    def _replace(target: Path, data: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _part(target)
        part.write_bytes(data)
        part.replace(target)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}{_TEMPORARY}")


def _inside(path: Path, folders: Iterable[Path]) -> bool:
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in folders)


def _stale(path: Path, size: int, mtime: float) -> bool:
    """Whether the file is missing, older, or of another size."""
    try:
        stat = path.stat()
    except OSError:
        return True
    return stat.st_size != size or stat.st_mtime < mtime - MTIME_TOLERANCE_S


def _outdated(source: Path, target: Path) -> bool:
    try:
        stat = source.stat()
    except OSError:
        return False
    return _stale(target, stat.st_size, stat.st_mtime)


def _copy_file(source: Path, target: Path) -> bool:
    part = _part(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, part)
        part.replace(target)
    except OSError as error:
        log.warning("volume_cache.skipped", extra={"file": str(source), "error": str(error)})
        part.unlink(missing_ok=True)
        return False
    return True


def _differ(files: list[File], before: list[File]) -> bool:
    known = {file.path: file for file in before}
    if known.keys() != {file.path for file in files}:
        return True
    return any(
        known[file.path].size != file.size or file.mtime > known[file.path].mtime + MTIME_TOLERANCE_S for file in files
    )


_pending: list[threading.Thread] = []


@atexit.register
def _join() -> None:
    for thread in _pending:
        thread.join(EXIT_TIMEOUT_S)
        if thread.is_alive():
            log.warning("volume_cache.timed_out", extra={"waited_s": EXIT_TIMEOUT_S})
