"""The job that a handler gets: the received mapping, with methods for progress, files and more."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from runpod_worker.log import log

Input = TypeVar("Input")

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # before Python 3.12 only the system's own path class has subclasses


class File(_Path):
    """A file that the caller names, as a field of the input type: `audio: File`. The handler gets its path.

    Callers send a URL, a data URL or base64. The worker downloads the file while earlier jobs still run, and removes it
    after the job.
    """

    __slots__ = ()


class JobBackend(Protocol):
    """Implements the methods and properties of a running job. Any thread of the handler may call them."""

    @property
    def cancelled(self) -> bool: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def input(self) -> Any: ...
    def progress(self, value: Any) -> None: ...
    def save(self, content: Any, name: str) -> str: ...
    def fetch(self, source: str, limit: int | None) -> Path: ...
    def metric(self, name: str, value: float) -> None: ...


class Job(dict[str, Any], Generic[Input]):
    """The job as received: a dict with `id`, `input` and any other key that the service sent. You may change it.

    If the handler's first argument is annotated `Job[MyInput]`, the worker validates the input before it calls the
    handler, and `job.input` is a `MyInput`.
    """

    __slots__ = ("_backend",)

    def __init__(self, received: dict[str, Any], backend: JobBackend | None = None) -> None:
        super().__init__(received)
        self._backend = backend

    def __copy__(self) -> Job[Input]:
        return Job(dict(self), self._backend)

    def __deepcopy__(self, memo: dict[int, Any]) -> Job[Input]:
        return Job(copy.deepcopy(dict(self), memo), self._backend)

    def __reduce__(self) -> tuple[Any, ...]:  # another process cannot use the backend
        return Job, (dict(self),)

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self["id"])

    @property
    def input(self) -> Input:
        """The input, as the type that the handler declares, or as received."""
        return cast(Input, self["input"] if self._backend is None else self._backend.input)

    def progress(self, value: Any) -> None:
        """Set the progress, any JSON value. Callers see it as `output` while the job is IN_PROGRESS.

        Takes a few microseconds: the worker sends values in the background, in order, and skips outdated ones.

        Raises:
            OutputError: the value is not JSON.
        """
        if self._backend is not None:
            self._backend.progress(value)

    def save(self, content: Any, name: str) -> str:
        """Store a file and return its URL, for the output of the job.

        The worker encodes pictures and uploads files in the background, and sends the result after them. Without a
        file store the URL is a `data:` URL; in a local test it is a path under ./output.

        Args:
            content: bytes, a path (str or Path; read immediately), a PIL image (copied, so you may change it
                afterwards), or any object with `.save(file, format=...)` (encoded immediately).
            name: a plain file name; its suffix sets the format and the content type.
        """
        if self._backend is None:
            raise RuntimeError("job.save works inside a handler that a worker runs")
        return self._backend.save(content, name)

    def fetch(self, url: str, *, limit: int | None = None) -> Path:
        """Download a file and return its path, whose name is the last part of the URL.

        Each URL is downloaded once per job, and the file is removed after the job. Prefer a `File` field in the input
        type: the worker downloads it before the job runs. In a coroutine, `await asyncio.to_thread(job.fetch, url)`.

        Args:
            url: an http, https or data URL, or base64.
            limit: maximum size in bytes, if it is below RUNPOD_MAX_DOWNLOAD_BYTES.

        Raises:
            InputError: the download failed, the file is too large, or its address is not public
                (RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS=true allows private addresses).
        """
        if self._backend is None:
            raise RuntimeError("job.fetch works inside a handler that a worker runs")
        return self._backend.fetch(url, limit)

    def metric(self, name: str, value: float) -> None:
        """Record a number about this job. The log event at the end of the job contains it."""
        if self._backend is not None:
            self._backend.metric(name, value)

    @property
    def cancelled(self) -> bool:
        """Whether a stop was requested. A handler that checks this can clean up before it returns."""
        return self._backend is not None and self._backend.cancelled

    @property
    def deadline(self) -> float | None:
        """When the timeout of the job ends, by `time.monotonic()`; None without a timeout."""
        return None if self._backend is None else self._backend.deadline

    @property
    def log(self) -> logging.Logger:
        """The package's logger; its lines carry the job's id."""
        return log
