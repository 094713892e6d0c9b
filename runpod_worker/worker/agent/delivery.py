"""Sends the reports of a job, chunks, progress, files and the outcome, one request after the other.

So chunks arrive in order, at most one progress value is in flight, and nothing follows the outcome. The outcome is sent
after the job's slot is free, while the next job runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial

from runpod_worker.core.dispatch.events import Event, LeaseLost
from runpod_worker.core.dispatch.messages import File
from runpod_worker.core.dispatch.values import Outcome
from runpod_worker.core.errors import BodyRefused, LinkRefused, SpoolFull
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.agent.outcome import outcome_body
from runpod_worker.worker.agent.reports import JobReports
from runpod_worker.worker.agent.spool import FileName, Spool, SpooledReport
from runpod_worker.worker.agent.taker import Taker
from runpod_worker.worker.link.http import HttpLink, ReportReply

MAX_CONCURRENT_OUTCOMES = 32
"""Further outcomes wait until one of these is acknowledged."""

SPOOL_AFTER_S = 5.0
"""An outcome that is undelivered for this long is written to the spool. It is still sent from memory."""

MAX_SMALL_BYTES = 64 * 1024
"""Larger outcomes carry no take, because they would delay it, and their round trips do not count."""

WINDOW_STEP_BYTES = 16 * 1024
"""Acknowledge in steps of this size; small compared with the window, so the sender never stalls on it."""


class Delivery:
    """Sends the reports of any number of jobs at the same time."""

    def __init__(
        self,
        link: HttpLink,
        breaker: CircuitBreaker,
        spool: Spool,
        taker: Taker,
        handle: Callable[[Event], object],
        worker_id: str,
        *,
        on_sent: Callable[[int, str, int], None],
        now: Callable[[], float],
    ) -> None:
        """`on_sent` gets the executor and key of a run, and the number of its bytes that left the agent."""
        self._link = link
        self._breaker = breaker
        self._spool = spool
        self._taker = taker
        self._handle = handle
        self._worker_id = worker_id
        self._on_sent = on_sent
        self._now = now
        self._outcome_slots = asyncio.Semaphore(MAX_CONCURRENT_OUTCOMES)

    async def deliver(self, reports: JobReports) -> None:
        """Send until the outcome is acknowledged or refused. After `SPOOL_AFTER_S` it is in the spool too."""
        try:
            await self._deliver(reports)
        finally:
            if reports.spool_timer is not None:
                reports.spool_timer.cancel()

    async def _deliver(self, reports: JobReports) -> None:
        while True:
            if reports.has_all_files and reports.spool_timer is None:
                loop = asyncio.get_running_loop()
                reports.spool_timer = loop.call_later(SPOOL_AFTER_S, self._spool_later, reports)
            if reports.chunks:
                await self._unless_discarded(reports, self._send_chunks(reports))
            elif reports.files:
                await self._unless_discarded(reports, self._send_files(reports))
            elif reports.outcome is not None and reports.has_all_files:
                await self._send_outcome(reports, reports.outcome)
                return
            elif reports.progress is not None and reports.outcome is None:
                await self._unless_discarded(reports, self._send_progress(reports, reports.progress))
            else:
                reports.wake.clear()
                await reports.wake.wait()

    async def _unless_discarded(self, reports: JobReports, sending: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(None) as reports.request:
                await sending
        except TimeoutError:
            if not reports.is_discarded:
                raise
        finally:
            reports.request = None

    async def _send_chunks(self, reports: JobReports) -> None:
        outputs = reports.next_chunks(several="chunks" in self._link.extensions)
        index = reports.index
        try:
            send = self._breaker.deliver(lambda: self._link.report_chunks(reports.attempt, index, outputs))
            await self._note_stale(reports, send)
        except LinkRefused as error:
            log.error("chunks.refused", extra={"job": reports.attempt.job_id, "error": str(error)})
            reports.fail(f"a chunk of the output was refused: {error}")
        if not reports.is_discarded:
            self._acknowledge(reports, reports.remove_chunks(len(outputs)))

    async def _send_progress(self, reports: JobReports, value: bytes) -> None:
        number, reports.progress = reports.progress_number, None

        async def send() -> ReportReply:
            if reports.outcome is not None:  # it arrived during an outage, and nothing may follow it
                return ReportReply()
            return await self._link.report_progress(reports.attempt, value, number)

        try:
            await self._note_stale(reports, self._breaker.call(send))
        except LinkRefused as error:
            log.error("progress.refused", extra={"job": reports.attempt.job_id, "error": str(error)})

    async def _note_stale(self, reports: JobReports, sending: Awaitable[ReportReply]) -> None:
        """Send a report of a running job. A stale reply means that its lease is lost, unless it was assigned again."""
        attempt = reports.attempt
        reply = await sending
        if reply.stale and not reports.is_discarded and reports.attempt == attempt:
            log.info("lease.lost", extra={"job": attempt.job_id, "attempt": attempt.number})
            reports.discard()
            self._handle(LeaseLost(reports.key))

    async def _send_files(self, reports: JobReports) -> None:
        files = list(reports.files)
        await asyncio.gather(*(self._send_file(reports, file) for file in files))
        if not reports.is_discarded:
            self._acknowledge(reports, reports.remove_files(len(files)))

    async def _send_file(self, reports: JobReports, file: File) -> None:
        job_id = reports.attempt.job_id
        store = partial(self._link.store_file, job_id, file.token, file.name, file.content_type, file.body)
        try:
            await self._breaker.deliver(store)
        except LinkRefused as error:
            log.error("file.refused", extra={"job": job_id, "name_": file.name, "error": str(error)})
            reports.fail(f"the file {file.name!r} could not be stored: {error}")

    def _acknowledge(self, reports: JobReports, size: int) -> None:
        """Report that these bytes left the agent, so that the job may send more."""
        reports.unacknowledged += size
        if reports.unacknowledged >= WINDOW_STEP_BYTES:
            self._on_sent(reports.executor, reports.key, reports.unacknowledged)
            reports.unacknowledged = 0

    # ---------------------------------------------------------------- the outcome

    async def _send_outcome(self, reports: JobReports, outcome: Outcome) -> None:
        self._replace_failed(reports, outcome)
        try:
            reply = await self._outcome_reply(reports, outcome)
            if reply.stale:
                log.info("outcome.ignored", extra={"job": reports.attempt.job_id, "attempt": reports.attempt.number})
        except LinkRefused as error:
            await self._report_refusal(reports, error, outcome)
        reports.replace_body(b"")
        reports.is_delivered = True
        if reports.spooling is not None:
            await asyncio.shield(reports.spooling)  # `spool` may await it too, after this delivery is cancelled
            await asyncio.to_thread(self._unspool, reports)

    @staticmethod
    def _replace_failed(reports: JobReports, outcome: Outcome) -> None:
        """Report a failure if the outcome says success, and a chunk or file of it could not be delivered."""
        if reports.error is not None and outcome.error is None and not outcome.stopped:
            reports.replace_body(outcome_body(Outcome(error=reports.error)))

    async def _outcome_reply(self, reports: JobReports, outcome: Outcome) -> ReportReply:
        """Send the outcome and return the reply. Send it again if the job was assigned again meanwhile."""
        while True:
            attempt = reports.attempt
            reply = await self._breaker.deliver(partial(self._finish, reports, outcome))
            if not reply.stale or reports.attempt == attempt:
                return reply

    async def _finish(self, reports: JobReports, outcome: Outcome) -> ReportReply:
        async with self._outcome_slots:
            return await self._finish_now(reports, outcome)

    async def _finish_now(self, reports: JobReports, outcome: Outcome) -> ReportReply:
        is_small = len(reports.body) <= MAX_SMALL_BYTES
        take = self._taker.open() if is_small else None
        started_at = self._now()
        try:
            reply = await self._link.finish(reports.attempt, reports.body, is_stream=outcome.is_stream, take=take)
        except BaseException:
            if take is not None:
                self._taker.lose(take)
            raise
        if is_small:
            reports.round_trip_s = self._now() - started_at
        if take is not None:
            self._taker.receive(take, reply.jobs)
        return reply

    async def _report_refusal(self, reports: JobReports, error: LinkRefused, outcome: Outcome) -> None:
        """Fail a job whose outcome the service cannot accept, so that its caller does not wait without end."""
        fields = {"job": reports.attempt.job_id, "status": error.status, "error": str(error)}
        log.error("outcome.refused", extra=fields)
        if not isinstance(error, BodyRefused):
            return
        reports.replace_body(outcome_body(Outcome(error=f"the job service refused the outcome: {error}")))
        try:
            await self._breaker.deliver(partial(self._finish, reports, outcome))
        except LinkRefused as again:
            log.error("outcome.refused", extra={**fields, "status": again.status, "error": str(again)})

    # ---------------------------------------------------------------- the spool

    async def spool(self, reports: JobReports) -> None:
        """Write the outcome to the spool, if the job has one and it is neither delivered nor in the spool yet."""
        if reports.spooling is not None:
            await asyncio.shield(reports.spooling)
        if reports.is_delivered:
            await asyncio.to_thread(self._unspool, reports)
        elif reports.outcome is not None and not reports.spooled:
            reports.fail_missing_files("the worker ended before a saved file arrived")
            self._replace_failed(reports, reports.outcome)
            await asyncio.to_thread(self._write_spool, reports, reports.outcome, list(reports.files))

    def _spool_later(self, reports: JobReports) -> None:
        if reports.outcome is not None:
            writing = asyncio.to_thread(self._write_spool, reports, reports.outcome, list(reports.files))
            reports.spooling = asyncio.create_task(writing, name=f"spool {reports.attempt.job_id}")

    def _write_spool(self, reports: JobReports, outcome: Outcome, files: list[File]) -> None:
        job_id, number = reports.attempt.job_id, reports.attempt.number
        new_report = partial(SpooledReport, job_id=job_id, attempt=number, worker_id=self._worker_id)
        file_reports = [
            new_report(body=file.body, file=FileName(file.token, file.name, file.content_type)) for file in files
        ]
        outcome_report = new_report(body=reports.body, is_stream=outcome.is_stream)
        try:
            for report in (*file_reports, outcome_report):
                reports.spooled.append(self._spool.write(report))
            log.warning("outcome.spooled", extra={"job": job_id})
        except (SpoolFull, OSError) as error:
            log.error("spool.failed", extra={"job": job_id, "error": str(error)})
            self._unspool(reports)  # files without their outcome

    def _unspool(self, reports: JobReports) -> None:
        while reports.spooled:
            self._spool.remove(reports.spooled.pop())
