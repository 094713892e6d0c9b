"""The job as a handler sees it: the mapping that was received, with what it may do on top."""

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
    _Path = type(Path())  # before Python 3.12 only the path of a system can be inherited from


class File(_Path):
    """A file that a job names, as a field of its input: `audio: File`. In the handler it is the path of that file.

    Callers give a URL, a data URL or base64. The file is downloaded while the device works on the jobs before, and
    removed when the job has ended.
    """

    __slots__ = ()


class JobBackend(Protocol):
    """What stands behind a job that runs: the attempt. Every method may be called from any thread of the handler."""

    @property
    def cancelled(self) -> bool:
        """Whether the job was told to stop."""

    @property
    def deadline(self) -> float | None:
        """When the job is out of time, by `time.monotonic()`."""

    @property
    def input(self) -> Any:
        """The validated input."""

    def progress(self, value: Any) -> None:
        """Make `value` the job's latest progress."""

    def save(self, content: Any, name: str) -> str:
        """Keep a file, return its URL."""

    def fetch(self, source: str, limit: int | None) -> Path:
        """Download a file, return its path."""

    def metric(self, name: str, value: float) -> None:
        """Note a number about this job."""


class Job(dict[str, Any], Generic[Input]):
    """The job as received: `job["id"]`, `job["input"]` and whatever else the service sent; a dict, yours to change.

    `Job[MyInput]` as the annotation of a handler's first argument has the input checked before the handler is called;
    `job.input` is then a `MyInput`.
    """

    __slots__ = ("_backend",)

    _backend: JobBackend | None

    def __init__(self, received: dict[str, Any], backend: JobBackend | None = None) -> None:
        super().__init__(received)
        self._backend = backend

    def __copy__(self) -> Job[Input]:
        return Job(dict(self), self._backend)

    def __deepcopy__(self, memo: dict[int, Any]) -> Job[Input]:
        return Job(copy.deepcopy(dict(self), memo), self._backend)

    def __reduce__(self) -> tuple[Any, ...]:  # another process has nothing behind it
        return Job, (dict(self),)

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self["id"])

    @property
    def input(self) -> Input:
        """The input: of the type the handler asked for, else as received."""
        return cast(Input, self["input"] if self._backend is None else self._backend.input)

    def progress(self, value: Any) -> None:
        """Tell callers how far the job is: any JSON value, seen as `output` while the job is IN_PROGRESS.

        Costs a few microseconds: values are sent in order behind the handler's back, and only the latest one counts.

        Raises:
            OutputError: the value is not JSON.
        """
        if self._backend is not None:
            self._backend.progress(value)

    def save(self, content: Any, name: str) -> str:
        """Store a file and return its URL, to be put into the output.

        Pictures are encoded and everything is uploaded after this call; the result waits for it. Where there is no
        file store the URL is a `data:` URL, in local test mode it is a path under ./output.

        Args:
            content: bytes, the path of a file (str or Path; it is read at once), a PIL image (it is copied, go on
                drawing), or anything with `.save(file, format=...)` (encoded at once).
            name: a plain file name; its suffix decides the format and the content type.
        """
        if self._backend is None:
            raise RuntimeError("job.save works inside a handler that a worker runs")
        return self._backend.save(content, name)

    def fetch(self, url: str, *, limit: int | None = None) -> Path:
        """Download a file and return its path, which ends with the name the URL ends with.

        The same URL is downloaded once per job. The file is removed when the job has ended. A `File` in the input's
        type is better where it can be used: it is downloaded before the job runs. In a coroutine:
        `await asyncio.to_thread(job.fetch, url)`.

        Args:
            url: http, https or a data URL; base64 works too.
            limit: most bytes, when fewer than RUNPOD_MAX_DOWNLOAD_BYTES.

        Raises:
            InputError: it cannot be downloaded, is too large, or is at an address that is not public
                (RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS=true allows those).
        """
        if self._backend is None:
            raise RuntimeError("job.fetch works inside a handler that a worker runs")
        return self._backend.fetch(url, limit)

    def metric(self, name: str, value: float) -> None:
        """Note a number about this job; it goes into the line the log gets when the job ends."""
        if self._backend is not None:
            self._backend.metric(name, value)

    @property
    def cancelled(self) -> bool:
        """Whether the job was told to stop; a handler that looks can leave in its own order."""
        return self._backend is not None and self._backend.cancelled

    @property
    def deadline(self) -> float | None:
        """When the job is out of time, by `time.monotonic()`; None when it may run on."""
        return None if self._backend is None else self._backend.deadline

    @property
    def log(self) -> logging.Logger:
        """The package's logger; its lines carry the job's id."""
        return log
