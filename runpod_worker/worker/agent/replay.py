"""Delivers the reports that earlier processes left in the spool."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from runpod_worker.core.dispatch.values import AttemptRef, Outcome
from runpod_worker.core.errors import BodyRefused, LinkRefused
from runpod_worker.log import log
from runpod_worker.worker.agent.breaker import DENIED_HINT, MAX_DENIED_S, CircuitBreaker
from runpod_worker.worker.agent.outcome import outcome_body
from runpod_worker.worker.agent.spool import Spool, SpooledReport
from runpod_worker.worker.link.http import HttpLink


class Replay:
    """Sends one report after the other; a job's files come before its outcome."""

    def __init__(self, link: HttpLink, breaker: CircuitBreaker, spool: Spool) -> None:
        self._link = link
        self._breaker = breaker
        self._spool = spool
        self._denied: set[str] = set()
        """The jobs with a denied report in this round."""
        self._errors: dict[str, str] = {}
        """The errors of jobs of which a file was refused."""

    async def run(self) -> None:
        """Deliver all reports. Try a denied report again, at growing intervals, for `MAX_DENIED_S`."""
        paths, tries = await asyncio.to_thread(self._spool.adopt), 0
        while paths := [path for path in paths if not await self._deliver(path)]:
            self._denied.clear()
            await asyncio.sleep(self._breaker.denied_delay_s(tries))
            tries += 1

    async def _deliver(self, path: Path) -> bool:
        """Send the report and remove it. False: it was denied, so it stays."""
        report = await asyncio.to_thread(self._spool.read, path)
        if report is None:
            return True
        if report.job_id in self._denied:
            return False
        try:
            await self._send(report)
        except LinkRefused as error:
            fields = {"job": report.job_id, "status": error.status, "error": str(error)}
            if await asyncio.to_thread(self._spool.age_s, path) < MAX_DENIED_S:
                if not self._denied:
                    log.error("report.denied", extra={**fields, "hint": DENIED_HINT})
                self._denied.add(report.job_id)
                return False
            log.error("outcome.refused", extra=fields)
        await asyncio.to_thread(self._spool.remove, path)
        return True

    async def _send(self, report: SpooledReport) -> None:
        try:
            if report.file is not None:
                await self._breaker.call(partial(self._store_file, report))
                return
            error = self._errors.get(report.job_id)
            await self._finish(report, report.body if error is None else outcome_body(Outcome(error=error)))
            log.info("outcome.replayed", extra={"job": report.job_id})
        except BodyRefused as error:
            log.error("outcome.refused", extra={"job": report.job_id, "status": error.status, "error": str(error)})
            text = f"the job service refused the outcome: {error}"
            if report.file is not None:
                self._errors[report.job_id] = f"the file {report.file.name!r} could not be stored: {error}"
            else:
                await self._report_refusal(report, text)

    async def _report_refusal(self, report: SpooledReport, text: str) -> None:
        try:
            await self._finish(report, outcome_body(Outcome(error=text)))
        except BodyRefused as error:
            log.error("outcome.refused", extra={"job": report.job_id, "status": error.status, "error": str(error)})

    async def _store_file(self, report: SpooledReport) -> None:
        if report.file is not None:
            name = report.file
            await self._link.store_file(report.job_id, name.token, name.name, name.content_type, report.body)

    async def _finish(self, report: SpooledReport, body: bytes) -> None:
        attempt = AttemptRef(report.job_id, report.attempt)
        send = partial(self._link.finish, attempt, body, is_stream=report.is_stream, worker_id=report.worker_id)
        await self._breaker.call(send)
