"""An attempt of a job inside the executor, from its Run message to its Done message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runpod_worker.core.dispatch.messages import Done, Run
from runpod_worker.core.dispatch.values import Outcome, Timings
from runpod_worker.core.errors import JobStopped
from runpod_worker.core.protocol import EXECUTION_TIMEOUT_ERROR
from runpod_worker.worker.executor import results
from runpod_worker.worker.executor.files.inputs import Downloads, JobFiles
from runpod_worker.worker.executor.window import FlowWindow
from runpod_worker.worker.handler.job import File, Job

now = time.monotonic
"""The clock of all times in messages; agent and executor share it."""


class Guard:
    """Calls the code of a handler so that a stop can reach it."""

    def interrupt(self, attempt: Attempt) -> None:
        """Stop the running code of this attempt, and of no other, if that is safe. Any thread may call it."""

    def raise_pending_stop(self, attempt: Attempt) -> None:
        """Raise JobStopped in the handler's own thread, unless the handler has got it already."""


attempts_by_job_id: dict[str, Attempt] = {}
"""The attempts in this process, for `progress_update` of RunPod's SDK, which may get only a job's id."""

_ENDED_JOB: Job[Any] = Job({"input": None})
_lock = threading.Lock()


class Attempt:
    """The state of an attempt, shared by the reader of the channel, the handler's thread and the Job."""

    def __init__(
        self,
        run: Run,
        received: dict[str, Any],
        queue_progress: Callable[[Attempt], None],
        save_file: Callable[[Attempt, Any, str], str],
        window: FlowWindow,
        downloads: Downloads,
    ) -> None:
        self.key = run.key
        self.files_url = run.files_url
        self.max_file_bytes = run.max_file_bytes
        self.job: Job[Any] = Job(received, self)
        self.id = str(received.get("id", run.key))
        self.input: Any = received.get("input")
        self.input_ready_at = 0.0
        self.started_at = 0.0
        self.first_chunk_at: float | None = None
        self.deadline = None if run.timeout_s is None else run.taken_at + run.timeout_s
        self.deadline_error = EXECUTION_TIMEOUT_ERROR
        """The job's error if the deadline stops it."""
        self.stop_reason: str | None = None
        """Why the job must stop, or None. The first reason stays."""
        self.timed_out = False
        self.ended = False
        self.guard: Guard | None = None
        self.window = window
        self.saved_files = 0
        self.job_files: JobFiles | None = None
        """Set as soon as the job names a file."""
        self.metrics: dict[str, float] = {}
        self._queue_progress = queue_progress
        self._save_file = save_file
        self._downloads = downloads
        self._progress = b""
        self._progress_queued = False
        self._unclaimed = threading.Lock()

    def claim(self) -> bool:
        """Whether the caller may run the job or answer for it. True for the first caller only."""
        return self._unclaimed.acquire(blocking=False)

    # ---------------------------------------------------------------- stops

    def stop(self, reason: str, *, timed_out: bool = False) -> None:
        """Stop the handler: set `cancelled`, then let the guard interrupt the handler if it can."""
        with _lock:
            if self.stop_reason is not None or self.ended:
                return
            self.timed_out = timed_out
            self.stop_reason = reason  # before the guard is read: the handler's thread sets the guard, then reads this
        if (guard := self.guard) is not None:
            guard.interrupt(self)
        if self.job_files is not None:
            self.job_files.stop(reason)
        self.window.close()

    def check(self) -> None:
        """Raise JobStopped if the job must stop."""
        if self.stop_reason is not None:
            raise JobStopped(self.stop_reason)

    def _raise_pending_stop(self) -> None:
        if self.stop_reason is not None and (guard := self.guard) is not None:
            guard.raise_pending_stop(self)

    # ---------------------------------------------------------------- the backend of the Job

    @property
    def cancelled(self) -> bool:
        return self.stop_reason is not None

    def progress(self, value: Any) -> None:
        data = results.encode_progress(value)
        if self.ended:
            return
        self._progress = data
        if not self._progress_queued:  # else the queued item takes this value
            self._progress_queued = True
            self._queue_progress(self)
        self._raise_pending_stop()

    def take_progress(self) -> bytes:
        """The value to send now."""
        self._progress_queued = False  # before the value is read, so that a newer value is queued again
        return self._progress

    def save(self, content: Any, name: str) -> str:
        url = self._save_file(self, content, name)
        self._raise_pending_stop()
        return url

    def _files_of_job(self) -> JobFiles:
        """The files that the job names; created with the first file."""
        with _lock:
            if self.ended:
                raise RuntimeError("job.fetch: the job has ended")
            self.job_files = self.job_files or JobFiles(self._downloads)
            return self.job_files

    def decode_field(self, kind: type, value: object) -> File:
        """Decode a field of the input that is a `File`."""
        return self._files_of_job().decode_field(kind, value)

    def fetch(self, source: str, limit: int | None) -> Path:
        try:
            return self._files_of_job().fetch(source, limit)
        finally:
            self._raise_pending_stop()
            self.check()

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = float(value)
        self._raise_pending_stop()

    # ---------------------------------------------------------------- the end

    def done(self, outcome: Outcome, finished_at: float, *, is_stream: bool = False) -> Done:
        """The Done message for the outcome of the handler. It is the last message of the job."""
        with _lock:  # a stop changes both values, or comes too late
            self.ended = True
            stop_reason, timed_out = self.stop_reason, self.timed_out
        timings = Timings(self.input_ready_at, self.started_at, finished_at, now(), self.first_chunk_at)
        stopped = stop_reason is not None and not timed_out
        if stopped:
            outcome = Outcome()
        elif timed_out:
            outcome = Outcome(outcome.output if is_stream else None, stop_reason)
        return Done(
            outcome.output,
            outcome.error,
            outcome.refresh,
            key=self.key,
            stopped=stopped,
            is_stream=is_stream,
            files=self.saved_files,
            timings=timings,
        )

    def break_cycle(self) -> None:
        """Break the Attempt/Job reference cycle, so that large inputs are freed without waiting for the collector.

        A handler that keeps its Job still has the whole job.
        """
        self.job = _ENDED_JOB
