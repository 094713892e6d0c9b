"""A journal whose disk writes, fails and loses power when a test says so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from runpod_worker.core.job import Status
from runpod_worker.service.journal.port import (
    Body,
    ChunkRecord,
    Delivery,
    EndedJob,
    ForgetRecord,
    JobRecord,
    Record,
    Snapshot,
    StoredJob,
    Totals,
    Written,
)
from runpod_worker.service.journal.writer import Append, GroupWriter
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.server import SteadyClock


class Disk:
    """What survives: the tables of a database, in dictionaries."""

    def __init__(self) -> None:
        self.jobs: dict[str, StoredJob] = {}
        self.bodies: dict[tuple[Body, int], bytes] = {}
        self.chunks: dict[int, list[bytes]] = {}
        self.chunk_bases: dict[int, int] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.totals = Totals()
        self.forgotten: set[str] = set()
        self.problems: list[str] = []
        """What no journal should be asked to write."""

    def check(self, sound: bool, problem: str) -> None:
        if not sound:
            self.problems.append(problem)

    def output(self, job_id: str) -> bytes | None:
        return self.bodies.get(("outputs", self.jobs[job_id].seq))

    def write(self, record: Record) -> None:
        match record:
            case JobRecord():
                self._write_job(record)
            case ChunkRecord():
                self.check(record.start == len(self.chunks.get(record.seq, [])), "chunks leave a gap")
                self.chunks.setdefault(record.seq, []).extend(record.chunks)
            case ForgetRecord() if self.jobs[record.job_id].job.ended_at == record.ended_at:
                self.check(record.job_id not in self.deliveries, "a job is forgotten before its webhook is sent")
                del self.jobs[record.job_id]
                self.forgotten.add(record.job_id)

    def _write_job(self, record: JobRecord) -> None:
        job, seq = record.job, record.seq
        before = self.jobs.get(job.id)
        versions = {0, 1} if before is None else {before.job.version, before.job.version + 1}
        self.check(job.version in versions, f"version {job.version} of job {job.id} does not follow on the one before")
        self.check((before is None) == (record.request is not None), "a job is added twice, or never was")
        self.jobs[job.id] = StoredJob(seq, job)
        if record.request is not None:
            self.bodies["requests", seq] = record.request
        if record.output is not None or record.drops_output:
            self.bodies.pop(("outputs", seq), None)
        if record.output is not None:
            self.bodies["outputs", seq] = record.output
        if record.chunk_base == 0:
            self.chunks.pop(seq, None)
        if record.chunk_base is not None:
            self.chunk_bases[seq] = record.chunk_base
        if record.drops_delivery:
            self.deliveries.pop(job.id, None)
        if record.delivery is not None:
            self.deliveries[job.id] = record.delivery
        if record.adds_to is not None:
            self.totals[job.endpoint, record.adds_to] += 1


class ManualJournal:
    """`Journal` on a `Disk`. Its thread writes when `write` is called, its loop hears of it when `report` is."""

    keeps = True

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.durable = copy.deepcopy(disk)
        """What is left after a power cut."""
        self.queued: list[Append] = []
        self.reports: list[tuple[list[Append], set[str], int]] = []
        self.broken: list[Append] = []
        self.dead = False
        self._groups = GroupWriter(self)
        self._failures_seen = 0
        self._on_lost: Callable[[Collection[str]], None]

    def load(self, on_lost: Callable[[Collection[str]], None]) -> Snapshot:
        self._on_lost = on_lost
        stored = sorted(self.disk.jobs.values(), key=lambda each: each.seq)
        unfinished = [each for each in stored if not each.job.final]
        deliveries = sorted(self.disk.deliveries.values(), key=lambda delivery: delivery.job_id)
        return Snapshot(unfinished, deliveries, Totals(self.disk.totals), stored[-1].seq if stored else 0)

    def append(self, records: Sequence[Record], *, durable: bool) -> Written:
        append = Append(records, durable=durable, failures_seen=self._failures_seen)
        self.queued.append(append)
        if self.dead:
            self.die()
        return append.written

    def run_thread(self, count: int, broken: Collection[int] = ()) -> None:
        """Write the first appends as one group; those at the positions `broken` cannot be written."""
        group = self.queued[:count]
        del self.queued[:count]
        if group:
            self.broken = [append for number, append in enumerate(group) if number in broken]
            lost = self._groups.write(group)
            self.reports.append((group, lost, self._groups.failures))

    def report(self) -> None:
        """Report the oldest group to the loop, as `Writer` does."""
        group, lost, failures = self.reports.pop(0)
        if lost:
            self._on_lost(lost)
        self._failures_seen = failures
        for append in group:
            append.settle()

    def die(self) -> None:
        """The process is dead: no append is ever answered. Its tasks end with errors that they tell to no one."""
        self.dead = True
        for append in [*self.queued, *(append for group, _, _ in self.reports for append in group)]:
            append.error = OSError("the process died")
            append.settle()
        self.queued.clear()
        self.reports.clear()

    def write(self, records: Sequence[Record], *, durable: bool) -> None:
        broken = {id(record) for append in self.broken for record in append.records}
        if any(id(record) in broken for record in records):
            raise OSError("the disk is full")
        for record in records:
            self.disk.write(record)
        if durable:
            self.durable = copy.deepcopy(self.disk)

    def read(self, job_id: str) -> StoredJob | None:
        stored = self.disk.jobs.get(job_id)
        return None if stored is None else stored._replace(delivery=self.disk.deliveries.get(job_id))

    async def body(self, kind: Body, job_id: str) -> bytes | None:
        return self.disk.bodies.get((kind, self._seq(job_id)))

    def chunk_range(self, job_id: str) -> tuple[int, int]:
        seq = self._seq(job_id)
        return self.disk.chunk_bases.get(seq, 0), len(self.disk.chunks.get(seq, []))

    def chunks(self, job_id: str, start: int, stop: int) -> list[bytes]:
        return self.disk.chunks.get(self._seq(job_id), [])[start:stop]

    def _seq(self, job_id: str) -> int:
        return self.disk.jobs[job_id].seq if job_id in self.disk.jobs else 0

    async def find_ended(self, before: float, *, sync: bool, limit: int) -> list[EndedJob]:
        ended = [
            EndedJob(seq, job_id, job.ended_at)
            for job_id, (seq, job, _) in self.disk.jobs.items()
            if job.sync is sync and job.ended_at is not None and job.ended_at < before
        ]
        return [job for job in ended if job.job_id not in self.disk.deliveries][:limit]

    async def close(self) -> None:
        return None


@pytest.fixture(scope="session")
def manual_journal() -> tuple[type[Disk], type[ManualJournal]]:
    """The disk and the journal on it."""
    return Disk, ManualJournal


class ClockRules:
    """The time of a machine over the queue: it passes, the wall clock is set, the process is frozen."""

    wall = 1000.0
    elapsed = 0.0
    queue: JobQueue
    start: Callable[[Coroutine[Any, Any, None]], None]

    def new_clock(self) -> SteadyClock:
        """The clock of a new process."""
        return SteadyClock(lambda: self.wall, lambda: self.elapsed)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds

    @rule(seconds=st.sampled_from([1.0, 41.0, 100.0]))
    def sweep(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.start(self.queue.sweep.once())

    @rule(seconds=st.sampled_from([45.0, 3600.0]))
    def step_clock(self, seconds: float) -> None:
        """An administrator sets the wall clock: nothing becomes due, nothing is delayed."""
        self.start(self.queue.sweep.once())
        before = self.statuses()
        self.wall += seconds
        self.start(self.queue.sweep.once())
        assert self.statuses() == before, "a step of the clock changes a job"

    @rule(seconds=st.sampled_from([11.0, 100.0]))
    def freeze(self, seconds: float) -> None:
        """The process is stopped and continued. Its timer fires late, and heartbeats could not arrive."""
        self.start(self.queue.sweep.once())
        leased = {job.id for job in self.queue.jobs.index.all_leased() if job.stop is None}
        self.pass_time(seconds)
        self.start(self.queue.sweep.once(late_s=seconds))
        lost = leased - {job.id for job in self.queue.jobs.index.all_leased()}
        assert not lost, f"a frozen service takes jobs from workers that are alive: {lost}"

    def statuses(self) -> dict[str, Status]:
        """The unfinished jobs. A sweep deletes ended jobs only after its commit, so the next sweep may delete them."""
        jobs = {job_id: self.queue.jobs.index.get(job_id) for job_id in self.queue.jobs.index}
        return {job_id: job.status for job_id, job in jobs.items() if job is not None and not job.final}


@pytest.fixture
def clock_rules() -> type[ClockRules]:
    """A part of a state machine."""
    return ClockRules
