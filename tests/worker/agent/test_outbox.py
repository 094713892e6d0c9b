"""The reports of all jobs at the end of the worker."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from runpod_worker.core.dispatch.values import AttemptRef, Outcome
from runpod_worker.worker.agent import delivery
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.agent.delivery import Delivery
from runpod_worker.worker.agent.outbox import Outbox
from runpod_worker.worker.agent.spool import Spool, SpooledReport
from runpod_worker.worker.link.http import ReportReply


class OneAnswer:
    """A link that acknowledges the job `a` when the test allows it, and never another job."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def finish(self, attempt: AttemptRef, body: bytes, **_: Any) -> ReportReply:
        if attempt.job_id != "a":
            await asyncio.Event().wait()
        await self.may_answer.wait()
        return ReportReply()


class NoTakes:
    def open(self) -> None:
        return None


class SlowSpool(Spool):
    """A spool on a disk that writes when the test allows it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, endpoint="e", max_bytes=10_000)
        self.writes, self.may_write = threading.Event(), threading.Event()

    def write(self, report: SpooledReport) -> Path:
        self.writes.set()
        assert self.may_write.wait(30)
        return super().write(report)


async def test_every_undelivered_outcome_is_spooled_when_a_delivery_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = asyncio.get_running_loop().time
    link: Any = OneAnswer()
    breaker, spool, takes = CircuitBreaker(now=now, random=lambda: 0.0), SlowSpool(tmp_path), NoTakes()
    sender = Delivery(link, breaker, spool, takes, print, "w", on_sent=print, now=now)  # type: ignore[arg-type]
    outbox = Outbox(sender, print)
    monkeypatch.setattr(delivery, "SPOOL_AFTER_S", 0.0)
    outbox.finish("a", AttemptRef("a", 1), Outcome(), b'{"output":1}')
    assert await asyncio.to_thread(spool.writes.wait, 30)
    link.may_answer.set()  # from here on the delivery of `a` waits for the disk
    monkeypatch.setattr(delivery, "SPOOL_AFTER_S", 1000.0)
    outbox.finish("b", AttemptRef("b", 1), Outcome(), b'{"output":2}')
    await asyncio.sleep(0.05)

    ending = asyncio.create_task(outbox.spool_all())
    await asyncio.sleep(0.05)
    spool.may_write.set()
    await asyncio.wait([ending], timeout=30)

    assert not ending.cancelled()
    assert ending.exception() is None
    spool.close()
    successor = Spool(tmp_path, endpoint="e", max_bytes=10_000)
    reports = [successor.read(path) for path in successor.adopt()]
    assert [report.job_id for report in reports if report is not None] == ["b"]  # `a` was acknowledged: send it once
