"""One attempt of a job inside the executor, from its Run message to its Done message."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

from msgspec import structs

from runpod_worker.core.errors import JobStopped
from runpod_worker.worker.executor import results
from runpod_worker.worker.executor.files.jobfiles import JobFiles
from runpod_worker.worker.executor.results import Outcome
from runpod_worker.worker.executor.window import FlowWindow
from runpod_worker.worker.handler.job import Job
from runpod_worker.worker.ipc.messages import Done, Run, Timings

now = time.monotonic
"""The clock of all times in messages; both processes share it."""


class Guard(Protocol):
    """A place where user code can be interrupted."""

    def interrupt(self, attempt: Attempt) -> None:
        """Raise JobStopped (or cancel) in the user code of exactly this job, if it still runs. From any thread."""

    def raise_pending_stop(self, attempt: Attempt) -> None:
        """Our code, which must not be interrupted, goes back to the user's: raise what had to wait for that."""


class Post(Protocol):
    """Where progress goes."""

    def put(self, item: Attempt) -> None:
        """Send the latest progress soon. Never waits."""


class Files(Protocol):
    """Where saved files go."""

    def save(self, attempt: Attempt, content: Any, name: str) -> str:
        """Keep the file, return its URL."""

    def close(self) -> None:
        """Finish what was begun."""


class Fetcher(Protocol):
    """Where downloaded files come from."""

    def fetch(self, attempt: Attempt, source: object, limit: int | None) -> Path:
        """The file, when it is there."""


attempts_by_job_id: dict[str, Attempt] = {}
"""The attempts of this process by job id, for whoever has the id only."""


_GONE: Job[Any] = Job({"input": None})


class Attempt:
    """The attempt, shared by the thread that reads the channel, the one that runs the handler, and the handler's own.

    No lock is needed: what several threads touch is changed by single steps of the interpreter, in the order noted.
    """

    __slots__ = (
        "_claim",
        "_files",
        "_post",
        "_posted",
        "_progress",
        "deadline",
        "ended",
        "fetched",
        "fetcher",
        "files",
        "first_chunk_at",
        "guard",
        "id",
        "input",
        "input_ready_at",
        "job",
        "key",
        "limit",
        "metrics",
        "reason",
        "run",
        "started_at",
        "timed_out",
        "window",
    )

    def __init__(self, run: Run, received: dict[str, Any], post: Post, files: Files, window: FlowWindow) -> None:
        self.run = structs.replace(run, body=b"")  # it is `received`, and may be large
        self.key = run.key
        self.job: Job[Any] = Job(received, self)
        self.id = str(received.get("id", run.key))
        self.input: Any = received.get("input")
        self.input_ready_at = 0.0
        self.started_at = 0.0
        self.first_chunk_at: float | None = None
        self.deadline: float | None = None
        self.limit = ""
        """Which limit the deadline stands for, in the words of the job's error."""
        self.reason: str | None = None
        """Why the job must stop; None while it need not. The first reason counts."""
        self.timed_out = False
        self.guard: Guard | None = None
        self.ended = False
        self.files = 0
        self.fetcher: Fetcher | None = None
        self.fetched: JobFiles | None = None
        """The files the job named, once it has named one."""
        self.metrics: dict[str, float] = {}
        self.window = window
        self._post = post
        self._files = files
        self._progress = b""
        self._posted = False
        self._claim = [True]

    # ---------------------------------------------------------------- whose it is

    def claim(self) -> bool:
        """Whether the caller may decide what happens to the job: run it, or answer for it. True for one caller only."""
        try:
            return self._claim.pop()
        except IndexError:
            return False

    # ---------------------------------------------------------------- stops

    def stop(self, reason: str, *, timed_out: bool = False) -> None:
        """Make the handler end: `cancelled` is true at once, then its code is interrupted where it is."""
        if self.reason is not None or self.ended:
            return
        self.timed_out = timed_out
        self.reason = reason  # before the guard is looked at: a guard is set before the reason is
        guard = self.guard
        if guard is not None:
            guard.interrupt(self)
        if self.fetched is not None:
            self.fetched.stop(reason)
        self.window.close()

    def check(self) -> None:
        """Raise JobStopped if the job must stop."""
        if self.reason is not None:
            raise JobStopped(self.reason)

    # ---------------------------------------------------------------- behind the Job

    @property
    def cancelled(self) -> bool:
        return self.reason is not None

    def progress(self, value: Any) -> None:
        data = results.encoded(value, "progress")
        if self.ended:
            return
        self._progress = data
        if not self._posted:  # else what is on its way will find this value
            self._posted = True
            self._post.put(self)
        self._raise_pending_stop()

    def take_progress(self) -> bytes:
        """The value to send now."""
        self._posted = False  # before the value is read: a newer one posts itself again
        return self._progress

    def save(self, content: Any, name: str) -> str:
        url = self._files.save(self, content, name)
        self._raise_pending_stop()
        return url

    def fetch(self, source: str, limit: int | None) -> Path:
        if self.ended or self.fetcher is None:
            raise RuntimeError("job.fetch: the job has ended")
        try:
            return self.fetcher.fetch(self, source, limit)
        finally:
            self._raise_pending_stop()
            self.check()

    def metric(self, name: str, value: float) -> None:
        self.metrics[name] = float(value)

    def _raise_pending_stop(self) -> None:
        if self.reason is not None and (guard := self.guard) is not None:
            guard.raise_pending_stop(self)

    # ---------------------------------------------------------------- the end

    def done(self, outcome: Outcome, finished_at: float, *, is_stream: bool = False) -> Done:
        """The one Done of this attempt, for what the handler came to. Nothing is sent about the job after it."""
        self.ended = True
        timings = Timings(self.input_ready_at, self.started_at, finished_at, now(), self.first_chunk_at)
        if self.reason is not None and not self.timed_out:
            return Done(self.key, stopped=True, is_stream=is_stream, files=self.files, timings=timings)
        if self.timed_out:
            outcome = Outcome(outcome.output if is_stream else None, self.reason)
        return Done(
            self.key, outcome.output, outcome.error, outcome.refresh, False, False, is_stream, self.files, timings
        )

    def break_cycle(self) -> None:
        """Be no reason that the job stays in memory. A handler that kept it keeps all of it.

        The two hold each other, and a collection of such cycles may be hundreds of large inputs away.
        """
        self.job = _GONE
