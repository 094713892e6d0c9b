"""One job's reports to the service: chunks, progress, files, outcome, one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runpod_worker.core.dispatch.values import Assignment, TakeRequest
from runpod_worker.core.errors import LinkRefused, SpoolFull
from runpod_worker.core.protocol import MIB
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import Gate
from runpod_worker.worker.agent.outcome import error_body
from runpod_worker.worker.agent.slots import Held
from runpod_worker.worker.agent.spool import FileName, Spool, SpooledReport
from runpod_worker.worker.ipc.messages import File
from runpod_worker.worker.link.port import Link, ReportReply

POSTS = 32
"""Outcomes under way at once."""

SPOOL_AFTER_S = 5.0
"""An outcome that is undelivered for so long is put on disk, and still sent from memory."""

SMALL = 64 * 1024
"""Bodies up to this size tell something about round trips, and may carry the wish for the next job; larger ones would
delay it."""

CHUNKS_BYTES = MIB // 2
"""Most bytes of chunks in one post, unless a single one is larger: well under what servers take for a body."""

CREDIT_STEP = 16 * 1024
"""A job hears that its bytes have left once there are so many: far below what it may owe at any time (credit.py)."""

_UNREADABLE = frozenset({400, 413, 422})
"""What a service says to an outcome that it cannot take for what is in it; a failure in its place can be told."""


class Asking(Protocol):
    """Who wants the next jobs when an outcome leaves."""

    def ask(self) -> TakeRequest | None:
        """What to ask for with the outcome that leaves now."""

    def arrived(self, ask: TakeRequest, jobs: tuple[Assignment, ...]) -> None:
        """The answer."""

    def unanswered(self, ask: TakeRequest) -> None:
        """There was no answer: jobs may have been handed over that were never seen."""


@dataclass(slots=True)
class Desk:
    """What all deliveries share. `buffered` counts the bytes of chunks and files that wait."""

    link: Link
    gate: Gate
    spool: Spool
    worker_id: str
    asking: Asking
    now: Callable[[], float]
    measured: Callable[[float], None]
    lost: Callable[[Held], None]
    posts: asyncio.Semaphore
    tasks: asyncio.TaskGroup
    buffered: int = 0


class Delivery:
    """Fed by the agent, emptied by `run`."""

    def __init__(self, job: Held, desk: Desk) -> None:
        self.job = job
        self.body: bytes | None = None
        self._desk = desk
        self._wake = asyncio.Event()
        self._chunks: deque[bytes] = deque()
        self._index = 0
        self._progress: bytes | None = None
        self._progress_number = 0
        self._files: list[File] = []
        self._files_seen = self._files_expected = 0
        self._file_error: str | None = None
        self._is_stream = False
        self._dropped = False
        self._under_way: asyncio.Timeout | None = None
        self._kept: list[Path] = []
        self._to_credit = 0
        self._keeping: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------- fed by the agent

    def chunks(self, index: int, outputs: list[bytes]) -> None:
        """Consecutive chunks, the first with this index."""
        if self._dropped:
            return
        if not self._chunks:
            self._index = index
        self._chunks.extend(outputs)
        self._buffer(sum(map(len, outputs)))
        self._wake.set()

    def progress(self, value: bytes) -> None:
        """The latest progress value; the one before is not sent if it was not yet."""
        self._progress = value
        self._progress_number += 1
        self._wake.set()

    def file(self, file: File) -> None:
        """A file that the outcome names."""
        self._files_seen += 1
        if self._dropped:
            return
        self._files.append(file)
        self._buffer(len(file.body))
        self._wake.set()

    def file_failed(self, error: str) -> None:
        """A file that the outcome names does not exist: the job has failed."""
        self._file_error = self._file_error or error
        self._files_seen += 1
        self._wake.set()

    def outcome(self, body: bytes, *, is_stream: bool, files: int) -> None:
        """The last thing that is said; `files` must be stored before."""
        self.body = body
        self._is_stream = is_stream
        self._files_expected = files
        self._wake.set()

    def drop(self) -> None:
        """Say nothing more about the job, except an outcome that comes later."""
        self._dropped = True
        self._buffer(-sum(map(len, self._chunks)) - sum(len(file.body) for file in self._files))
        self._chunks.clear()
        self._files.clear()
        self._progress = None
        self._wake.set()
        if self._under_way is not None:  # what is under way is not waited for: the outcome of the stop is
            self._under_way.reschedule(asyncio.get_running_loop().time())

    # ---------------------------------------------------------------- emptied by the loop

    async def run(self) -> None:
        """Deliver until the outcome is acknowledged, or the job turns out to be somebody else's."""
        while not (self._dropped and self.body is None):
            if self._chunks:
                await self._unless_dropped(self._send_chunks())
            elif self._files:
                await self._unless_dropped(self._send_files())
            elif self.body is not None and self._files_seen >= self._files_expected:
                await self._send_outcome()
                return
            elif self._progress is not None and self.body is None:
                await self._unless_dropped(self._send_progress(self._progress))
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _unless_dropped(self, work: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(None) as self._under_way:
                await work
        except TimeoutError:
            if not self._dropped:
                raise
        finally:
            self._under_way = None

    async def _send_chunks(self) -> None:
        outputs = self._next_chunks()
        index = self._index

        async def send() -> ReportReply:
            if self._dropped:
                return ReportReply()
            return await self._desk.link.report_chunks(self.job.named, index, outputs)

        await self._answered(send, "chunks")
        if not self._dropped:
            for _ in outputs:
                self._chunks.popleft()
            self._index = index + len(outputs)
            self._left(sum(map(len, outputs)))

    def _next_chunks(self) -> list[bytes]:
        if "chunks" not in self._desk.link.extensions:
            return [self._chunks[0]]
        outputs: list[bytes] = []
        size = 0
        for chunk in self._chunks:
            if outputs and size + len(chunk) > CHUNKS_BYTES:
                break
            outputs.append(chunk)
            size += len(chunk) + 1
        return outputs

    async def _send_progress(self, value: bytes) -> None:
        number, self._progress = self._progress_number, None

        async def send() -> ReportReply:
            if self.body is not None or self._dropped:  # overtaken while the service was away
                return ReportReply()
            return await self._desk.link.report_progress(self.job.named, value, number)

        await self._answered(send, "progress")

    async def _send_files(self) -> None:
        files = list(self._files)
        await asyncio.gather(*(self._send_file(file) for file in files))
        if not self._dropped:
            del self._files[: len(files)]
            self._left(sum(len(file.body) for file in files))

    async def _send_file(self, file: File) -> None:
        link = self._desk.link
        try:
            await self._desk.gate.until_answered(
                lambda: link.store_file(self.job.job_id, file.token, file.name, file.content_type, file.body)
            )
        except LinkRefused as error:
            log.error("file.refused", extra={"job": self.job.job_id, "name_": file.name, "error": str(error)})
            self._file_error = self._file_error or f"the file {file.name!r} could not be stored: {error}"

    async def _send_outcome(self) -> None:
        if self._file_error is not None:
            self.body = error_body(self._file_error)
        timer = asyncio.get_running_loop().call_later(SPOOL_AFTER_S, self._keep_soon)
        try:
            async with self._desk.posts:
                answer = await self._outcome_answered()
            if answer.stale:
                log.info("outcome.stale", extra={"job": self.job.job_id, "attempt": self.job.attempt})
        except LinkRefused as error:
            await self._refused(error)
        finally:
            timer.cancel()
        if self._keeping is not None:
            await self._keeping
            await asyncio.to_thread(self._forget_kept)

    async def _outcome_answered(self) -> ReportReply:
        """The answer to the outcome; it is sent again when the job was handed over anew while it was under way."""
        while True:
            handed = self.job.handed
            answer = await self._desk.gate.until_answered(self._post_outcome)
            if not answer.stale or self.job.handed == handed:
                return answer

    async def kept(self) -> None:
        """Put the outcome on disk, if there is one and it is not there yet."""
        if self._keeping is not None:
            await self._keeping
        if self.body is not None and not self._kept:
            await asyncio.to_thread(self._keep, self.body)

    async def _post_outcome(self) -> ReportReply:
        assert self.body is not None  # noqa: S101 - the loop has seen it
        desk, small = self._desk, len(self.body) <= SMALL
        ask = desk.asking.ask() if small else None
        started = desk.now()
        try:
            answer = await desk.link.finish(self.job.named, self.body, is_stream=self._is_stream, take=ask)
        except BaseException:
            if ask is not None:
                desk.asking.unanswered(ask)
            raise
        if small:
            desk.measured(desk.now() - started)
        if ask is not None:
            desk.asking.arrived(ask, answer.jobs)
        return answer

    async def _refused(self, error: LinkRefused) -> None:
        """A result that the service cannot take must not leave its caller waiting: the job fails instead, once."""
        log.error("outcome.refused", extra={"job": self.job.job_id, "status": error.status, "error": str(error)})
        if error.status not in _UNREADABLE:
            return
        self.body = error_body(f"the job service refused the outcome: {error}")
        try:
            await self._desk.gate.until_answered(self._post_outcome)
        except LinkRefused as again:
            log.error("outcome.refused", extra={"job": self.job.job_id, "status": again.status, "error": str(again)})

    async def _answered(self, send: Callable[[], Awaitable[ReportReply]], what: str) -> None:
        handed = self.job.handed
        try:
            answer = await self._desk.gate.until_answered(send)
        except LinkRefused as error:
            log.error(f"{what}.refused", extra={"job": self.job.job_id, "error": str(error)})
            return
        if answer.stale and not self._dropped and self.job.handed == handed:
            log.info("attempt.lost", extra={"job": self.job.job_id, "attempt": self.job.attempt})
            self.drop()
            self._desk.lost(self.job)

    def _buffer(self, size: int) -> None:
        self._desk.buffered += size

    def _left(self, size: int) -> None:
        """So many bytes wait no more: their job may go on, told in steps that spare frames."""
        self._buffer(-size)
        self._to_credit += size
        if self._to_credit >= CREDIT_STEP:
            self.job.credit(self._to_credit)
            self._to_credit = 0

    # ---------------------------------------------------------------- kept on disk

    def _keep_soon(self) -> None:
        assert self.body is not None  # noqa: S101 - the loop has seen it
        keeping = asyncio.to_thread(self._keep, self.body)
        self._keeping = self._desk.tasks.create_task(keeping, name=f"spool {self.job.job_id}")

    def _keep(self, body: bytes) -> None:
        try:
            self._kept = [self._desk.spool.write(entry) for entry in self._entries(body)]
            log.warning("outcome.spooled", extra={"job": self.job.job_id})
        except (SpoolFull, OSError) as error:
            log.error("outcome.not_spooled", extra={"job": self.job.job_id, "error": str(error)})

    def _entries(self, body: bytes) -> list[SpooledReport]:
        job_id, attempt = self.job.job_id, self.job.attempt
        worker_id = self._desk.worker_id
        files = [
            SpooledReport(
                job_id=job_id,
                attempt=attempt,
                worker_id=worker_id,
                body=file.body,
                file=FileName(file.token, file.name, file.content_type),
            )
            for file in self._files
        ]
        outcome = SpooledReport(
            job_id=job_id, attempt=attempt, worker_id=worker_id, body=body, is_stream=self._is_stream
        )
        return [*files, outcome]

    def _forget_kept(self) -> None:
        for path in self._kept:
            self._desk.spool.remove(path)
        self._kept = []
