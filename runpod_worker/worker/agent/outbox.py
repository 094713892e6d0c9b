"""The reports of all jobs, until the service has acknowledged them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runpod_worker.core.dispatch.events import Delivered, Event, ReportsFull, Streamed
from runpod_worker.core.dispatch.messages import Chunks, File, FileFailed, FilePart, Progress, Report
from runpod_worker.core.dispatch.values import AttemptRef, Outcome
from runpod_worker.core.protocol import MIB
from runpod_worker.log import log
from runpod_worker.worker.agent.delivery import Delivery
from runpod_worker.worker.agent.reports import JobReports

MAX_BUFFERED_BYTES = 128 * MIB
"""Stop taking jobs while this many bytes of reports are undelivered."""


class Outbox:
    """Reports by run key. A run is open from its start until its outcome is delivered."""

    def __init__(self, delivery: Delivery, handle: Callable[[Event], object]) -> None:
        self._delivery = delivery
        self._handle = handle
        self._reports: dict[str, JobReports] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._buffered = 0
        self._is_full = False
        self._file_arrived = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def open(self, key: str, attempt: AttemptRef, executor: int = 0) -> None:
        """Accept the reports of this run."""
        if key in self._reports:
            self.close(key)
        self._reports[key] = JobReports(key, attempt, executor, self._on_buffered)

    def adopt(self, key: str, attempt: AttemptRef) -> None:
        """Report the run as this attempt from now on."""
        reports = self._reports.get(key)
        if reports is not None:
            reports.attempt = attempt

    def add(self, message: Report) -> None:
        """Accept a chunk, progress or a file of a run, also after the run's slot is free."""
        reports = self._reports.get(message.key)
        if reports is None or reports.is_discarded:
            return
        match message:
            case Chunks():
                if not reports.has_streamed:
                    self._handle(Streamed(message.key))
                reports.add_chunks(message.index, message.outputs)
            case Progress():
                reports.set_progress(message.value)
            case FilePart():
                reports.add_file_part(message)
            case File():
                reports.add_file(message)
                self._file_arrived.set()
            case FileFailed():
                reports.fail_file(message.error)
                self._file_arrived.set()
        self._start(reports)

    def finish(self, key: str, attempt: AttemptRef, outcome: Outcome, body: bytes) -> None:
        """Deliver the outcome of a run."""
        if key not in self._reports:
            self.open(key, attempt)
        reports = self._reports[key]
        reports.set_outcome(outcome, body)
        self._start(reports)

    def discard(self, key: str) -> None:
        """Drop unsent reports, except an outcome."""
        reports = self._reports.get(key)
        if reports is not None:
            reports.discard()

    def close(self, key: str) -> None:
        """Drop the reports of a run without an outcome, and accept no more."""
        self.discard(key)
        self._reports.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        self._note_empty()

    def fail_missing_files(self, executor: int, how: str) -> None:
        """Fail the finished jobs that wait for files of this executor, whose process has ended."""
        for reports in self._reports.values():
            if reports.executor == executor:
                reports.fail_missing_files(f"a saved file is lost: its process {how} before the file was sent")
        self._file_arrived.set()

    async def wait_files(self) -> None:
        """Wait until the files of all finished jobs have arrived from the executors, or are lost."""
        while any(reports.outcome is not None and not reports.has_all_files for reports in self._reports.values()):
            self._file_arrived.clear()
            await self._file_arrived.wait()

    async def wait_empty(self) -> None:
        """Wait until all reports are delivered."""
        await self._empty.wait()

    async def spool_all(self) -> None:
        """Stop delivering, and write the undelivered outcomes to the spool."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reports in list(self._reports.values()):
            await self._delivery.spool(reports)

    # ---------------------------------------------------------------- deliveries

    def _start(self, reports: JobReports) -> None:
        if reports.key not in self._tasks:
            self._empty.clear()
            name = f"report {reports.attempt.job_id}"
            self._tasks[reports.key] = asyncio.create_task(self._deliver(reports), name=name)

    async def _deliver(self, reports: JobReports) -> None:
        try:
            await self._delivery.deliver(reports)
        except Exception:
            # After an internal error the next process sends the outcome, and other jobs continue.
            log.exception("report.failed", extra={"job": reports.attempt.job_id})
            await self._delivery.spool(reports)
        del self._reports[reports.key], self._tasks[reports.key]
        self._note_empty()
        self._handle(Delivered(reports.key, reports.round_trip_s))

    def _note_empty(self) -> None:
        if not self._tasks:
            self._empty.set()

    def _on_buffered(self, size: int) -> None:
        self._buffered += size
        is_full = self._buffered >= MAX_BUFFERED_BYTES
        if is_full != self._is_full:
            self._is_full = is_full
            self._handle(ReportsFull(is_full))
