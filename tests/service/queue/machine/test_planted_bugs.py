"""Each rule that is taken away here is missed by the machine: it would notice if the rule went by accident."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import Phase

from runpod_worker.core.job import Job
from runpod_worker.service.journal.port import JobRecord
from runpod_worker.service.journal.writer import GroupWriter
from runpod_worker.service.queue import transaction as transactions
from runpod_worker.service.queue.assign import Takes
from runpod_worker.service.queue.jobs import Jobs
from runpod_worker.service.queue.polls import Assigned
from runpod_worker.service.queue.reports import Reporter, Reports
from runpod_worker.service.queue.streams import ChunkLogs
from runpod_worker.service.queue.sweep import Sweep
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.server import SteadyClock


def notify_before_commit(patch: pytest.MonkeyPatch) -> None:
    commit = Transaction.commit

    async def commit_late(self: Transaction, *, durable: bool = True) -> None:
        for step in self._steps:
            self._jobs.on_committed(step)
        await commit(self, durable=durable)

    patch.setattr(Transaction, "commit", commit_late)


def skip_the_read_after_a_failure(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Jobs, "_read_again", lambda self, job_ids: None)


def write_what_was_decided_on_top_of_a_lost_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GroupWriter, "_is_refused", lambda self, append: False)


def drop_the_chunk_commit(patch: pytest.MonkeyPatch) -> None:
    add_chunks = Transaction.add_chunks

    def add_unwritten(self: Transaction, job_id: str, chunks: list[bytes], index: int | None) -> int:
        count = add_chunks(self, job_id, chunks, index)
        log = self._jobs.logs.of(job_id)
        self._steps = [step for step in self._steps if step.log is None]
        self._jobs.logs.on_written(log, count)
        return count

    patch.setattr(Transaction, "add_chunks", add_unwritten)


def lose_the_webhook_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transactions, "_due_delivery", lambda old, new: None)


def forget_the_lease_in_the_record(patch: pytest.MonkeyPatch) -> None:
    make = JobRecord

    def make_without(**fields: Any) -> JobRecord:
        return make(**fields | {"job": msgspec.structs.replace(fields["job"], lease=None)})

    patch.setattr(transactions, "JobRecord", make_without)


def show_jobs_before_they_are_written(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Jobs, job_id: str) -> None:
        return None

    patch.setattr(Jobs, "wait_committed", at_once)


def acknowledge_a_repeated_report_at_once(patch: pytest.MonkeyPatch) -> None:
    async def held_now(self: Reports, reporter: Reporter, job_id: str) -> Job | None:
        return self._held(reporter, job_id)

    patch.setattr(Reports, "_find_held", held_now)


def forget_which_takes_were_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Takes, "_is_released", lambda self, endpoint, worker, take_id: False)


def answer_a_take_without_its_commit(patch: pytest.MonkeyPatch) -> None:
    async def load_at_once(self: Takes, assigned: list[Assigned]) -> list[Assigned]:
        return assigned

    patch.setattr(Takes, "load", load_at_once)


def count_chunks_from_the_start_again(patch: pytest.MonkeyPatch) -> None:
    restart = ChunkLogs.restart
    patch.setattr(ChunkLogs, "restart", lambda self, job_id: restart(self, job_id) and None)


def take_the_jobs_of_all_after_a_freeze(patch: pytest.MonkeyPatch) -> None:
    async def renew_nothing(self: Sweep) -> int:
        return 0

    patch.setattr(Sweep, "_renew_leases", renew_nothing)


def read_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    def make(self: SteadyClock, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._elapsed, self._origin = wall, 0.0

    patch.setattr(SteadyClock, "__init__", make)


PLANTED = {
    take_the_jobs_of_all_after_a_freeze: 100,
    read_the_wall_clock: 100,
    notify_before_commit: 100,
    skip_the_read_after_a_failure: 100,
    write_what_was_decided_on_top_of_a_lost_write: 100,
    drop_the_chunk_commit: 100,
    lose_the_webhook_row: 300,
    forget_the_lease_in_the_record: 100,
    show_jobs_before_they_are_written: 100,
    acknowledge_a_repeated_report_at_once: 100,
    forget_which_takes_were_released: 500,
    answer_a_take_without_its_commit: 200,
    count_chunks_from_the_start_again: 500,
}
"""Rules that are taken away, and within how many examples the machine must notice."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_bug_is_noticed(run, monkeypatch, plant):
    plant(monkeypatch)

    with pytest.raises((AssertionError, ExceptionGroup)):
        run(PLANTED[plant], Phase.generate)
