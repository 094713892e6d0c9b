"""The reports of a job that the service has not acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from runpod_worker.core.dispatch.messages import File, FilePart
from runpod_worker.core.dispatch.values import AttemptRef, Outcome
from runpod_worker.core.protocol import MIB

MAX_CHUNKS_BYTES = MIB // 2
"""One request carries chunks up to this, or a single larger chunk. Servers accept much more."""


class JobReports:
    """Filled by the outbox, emptied by `delivery.Delivery`."""

    def __init__(self, key: str, attempt: AttemptRef, executor: int, on_buffered: Callable[[int], None]) -> None:
        """`on_buffered` gets each change of the number of waiting bytes."""
        self.key = key
        self.attempt = attempt
        """The attempt of the reports. It changes when the service assigns the held job again."""
        self.executor = executor
        self.has_streamed = False
        self.is_discarded = False
        self.wake = asyncio.Event()
        self.chunks: deque[bytes] = deque()
        self.index = 0
        """The index of the first waiting chunk."""
        self.progress: bytes | None = None
        self.progress_number = 0
        self.files: list[File] = []
        self._parts: dict[str, bytearray] = {}
        """The bytes of files that have not arrived as a whole, by token."""
        self.files_seen = 0
        self.error: str | None = None
        """Why a chunk or file of the job could not be delivered. The job then fails."""
        self.outcome: Outcome | None = None
        self.body = b""
        self.request: asyncio.Timeout | None = None
        """The request in flight; `discard` ends it."""
        self.is_delivered = False
        """Whether the service has answered the outcome."""
        self.spool_timer: asyncio.TimerHandle | None = None
        self.unacknowledged = 0
        self.round_trip_s: float | None = None
        self.spooled: list[Path] = []
        self.spooling: asyncio.Task[None] | None = None
        self._on_buffered = on_buffered

    def add_chunks(self, index: int, outputs: list[bytes]) -> None:
        """Add consecutive chunks, the first with this index."""
        if not self.chunks:
            self.index = index
        self.chunks.extend(outputs)
        self.has_streamed = True
        self._on_buffered(sum(map(len, outputs)))
        self.wake.set()

    def set_progress(self, value: bytes) -> None:
        """Set the progress value. It replaces an unsent value."""
        self.progress = value
        self.progress_number += 1
        self.wake.set()

    def add_file_part(self, part: FilePart) -> None:
        """Keep the next bytes of a large file, until its `File` arrives."""
        self._parts.setdefault(part.token, bytearray()).extend(part.body)
        self._on_buffered(len(part.body))

    def add_file(self, file: File) -> None:
        """Add a file that the outcome names."""
        parts = self._parts.pop(file.token, None)
        if parts is not None:
            self._on_buffered(-len(parts))
            parts.extend(file.body)
            file = msgspec.structs.replace(file, body=bytes(parts))
        self.files_seen += 1
        self.files.append(file)
        self._on_buffered(len(file.body))
        self.wake.set()

    def fail_file(self, error: str) -> None:
        """Fail the job, because a file that its outcome names does not exist."""
        self.fail(error)
        self.files_seen += 1
        self.wake.set()

    def fail_missing_files(self, error: str) -> None:
        """Fail the job if its outcome names a file that has not arrived, because none can arrive any more."""
        if self.outcome is not None and not self.has_all_files:
            self.files_seen = self.outcome.files
            self.fail(error)
            self.wake.set()

    def fail(self, error: str) -> None:
        """Fail the job with this error, unless it fails with another."""
        self.error = self.error or error

    def set_outcome(self, outcome: Outcome, body: bytes) -> None:
        """Set the last report. It is sent once all files that it names are stored."""
        self.outcome = outcome
        self.replace_body(body)
        self.wake.set()

    def discard(self) -> None:
        """Drop unsent and later reports, except an outcome."""
        self.is_discarded = True
        self._on_buffered(-sum(map(len, self.chunks)) - sum(len(file.body) for file in self.files))
        self._on_buffered(-sum(map(len, self._parts.values())))
        self.chunks.clear()
        self.files.clear()
        self._parts.clear()
        self.progress = None
        self.wake.set()
        if self.request is not None:  # do not wait for its reply, so that the outcome of the stop is sent now
            self.request.reschedule(asyncio.get_running_loop().time())

    def replace_body(self, body: bytes) -> None:
        """Report this body as the outcome."""
        self._on_buffered(len(body) - len(self.body))
        self.body = body

    @property
    def has_all_files(self) -> bool:
        """Whether every file that the outcome names has arrived or failed."""
        return self.outcome is not None and self.files_seen >= self.outcome.files

    def next_chunks(self, *, several: bool) -> list[bytes]:
        """Return the chunks of the next request: the first, and all others that fit."""
        if not several:
            return [self.chunks[0]]
        outputs: list[bytes] = []
        size = 0
        for chunk in self.chunks:
            if outputs and size + len(chunk) > MAX_CHUNKS_BYTES:
                break
            outputs.append(chunk)
            size += len(chunk) + 1
        return outputs

    def remove_chunks(self, count: int) -> int:
        """Remove the first chunks, which were sent; return their bytes."""
        size = sum(len(self.chunks.popleft()) for _ in range(count))
        self.index += count
        self._on_buffered(-size)
        return size

    def remove_files(self, count: int) -> int:
        """Remove the first files, which were stored; return their bytes."""
        size = sum(len(file.body) for file in self.files[:count])
        del self.files[:count]
        self._on_buffered(-size)
        return size
