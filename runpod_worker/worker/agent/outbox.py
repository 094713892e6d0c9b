"""Everything a worker has to tell the service about its jobs, until the service has heard it.

Each job has one delivery, which sends one thing at a time: so chunks arrive in order, at most one progress value is
under way, and nothing follows the outcome. All of it happens after the job's slot is free, while the next job runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from runpod_worker.core.dispatch.values import AttemptRef
from runpod_worker.core.errors import LinkRefused
from runpod_worker.core.protocol import MIB
from runpod_worker.log import log
from runpod_worker.worker.agent.reports import Delivery, Desk
from runpod_worker.worker.agent.slots import Held
from runpod_worker.worker.agent.spool import SpooledReport
from runpod_worker.worker.ipc.messages import Chunks, File, FileFailed, Progress
from runpod_worker.worker.link.port import ReportReply

UNDELIVERED = 64
"""With so many undelivered outcomes no more jobs are taken."""

UNDELIVERED_BYTES = 128 * MIB
"""The same, in bytes, with the chunks and files that wait."""


class Outbox:
    """All deliveries."""

    def __init__(self, desk: Desk, *, delivered: Callable[[Held], None]) -> None:
        """`delivered` is called when nothing more is to be said about a job."""
        self._desk = desk
        self._delivered = delivered
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def hear(self, job: Held, frame: Chunks | Progress | File | FileFailed) -> None:
        """Pass on what the executor reports about a running job."""
        delivery = self._delivery(job)
        match frame:
            case Chunks():
                job.streamed = True
                delivery.chunks(frame.index, frame.outputs)
            case Progress():
                delivery.progress(frame.value)
            case File():
                delivery.file(frame)
            case FileFailed():
                delivery.file_failed(frame.error)

    def finish(self, job: Held, body: bytes, *, is_stream: bool = False, files: int = 0) -> None:
        """Deliver the outcome."""
        self._sizes[job.key] = len(body)
        self._bytes += len(body)
        self._delivery(job).outcome(body, is_stream=is_stream, files=files)

    def drop(self, job: Held) -> None:
        """Forget what was not sent yet: the job is being stopped."""
        delivery = self._deliveries.get(job.key)
        if delivery is not None:
            delivery.drop()

    def crowded(self, slots: int) -> bool:
        """Whether so much is undelivered that no more work should be begun."""
        return len(self._sizes) >= max(UNDELIVERED, 2 * slots) or self._bytes + self._desk.buffered >= UNDELIVERED_BYTES

    def jobs(self) -> Iterator[Held]:
        """The jobs about which something is to be said."""
        return (delivery.job for delivery in self._deliveries.values())

    async def empty(self) -> None:
        """Wait until everything is delivered."""
        await self._idle.wait()

    async def keep_rest(self) -> None:
        """Stop delivering, and put on disk the outcomes that are undelivered."""
        for task in self._tasks.values():
            task.cancel()
        for delivery in self._deliveries.values():
            await delivery.kept()

    async def replay(self) -> None:
        """Deliver the outcomes that processes before this one left on disk."""
        spool = self._desk.spool
        for path in await asyncio.to_thread(spool.adopt):
            entry = await asyncio.to_thread(spool.read, path)
            if entry is not None:
                await self._replay(entry, path)

    async def _replay(self, report: SpooledReport, path: Path) -> None:
        link = self._desk.link
        attempt = AttemptRef(report.job_id, report.attempt)

        async def send() -> ReportReply:
            if report.file is not None:
                file = report.file
                await link.store_file(report.job_id, file.token, file.name, file.content_type, report.body)
                return ReportReply()
            return await link.finish(attempt, report.body, is_stream=report.is_stream, worker_id=report.worker_id)

        try:
            await self._desk.gate.until_answered(send)
            log.info("outcome.replayed", extra={"job": report.job_id})
        except LinkRefused as error:
            log.error("outcome.refused", extra={"job": report.job_id, "status": error.status, "error": str(error)})
        await asyncio.to_thread(self._desk.spool.remove, path)

    def _delivery(self, job: Held) -> Delivery:
        delivery = self._deliveries.get(job.key)
        if delivery is None:
            delivery = self._deliveries[job.key] = Delivery(job, self._desk)
            self._idle.clear()
            self._tasks[job.key] = self._desk.tasks.create_task(self._run(delivery), name=f"deliver {job.job_id}")
        return delivery

    async def _run(self, delivery: Delivery) -> None:
        try:
            await delivery.run()
        except Exception:
            # A fault of ours must cost neither the outcome nor the other jobs: the next process sends it.
            log.exception("delivery.failed", extra={"job": delivery.job.job_id})
            await delivery.kept()
        del self._deliveries[delivery.job.key], self._tasks[delivery.job.key]
        self._bytes -= self._sizes.pop(delivery.job.key, 0)
        if not self._deliveries:
            self._idle.set()
        self._delivered(delivery.job)
