"""A state machine over queue and journal. Callers and workers act, the disk writes or fails, process and power fail.

1. Whatever a caller or worker was told is on the disk at that moment, and there after a rebuild.
2. Once nothing is under way, memory is what a rebuild from the disk makes it, whatever failed before.
3. No job is assigned twice under one attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from runpod_worker.core.errors import IllegalTransition, JobNotFound, StoreUnavailable
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.service.queue.assign import ReleasedJob
from runpod_worker.service.queue.polls import Assigned, Submission, TakeRequest
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.reports import Report, Reporter
from runpod_worker.service.settings import ServiceSettings

WORKERS = ("w0", "w1")
FOREVER_S = 1e6
HOOK = "http://receiver.example/"

SUBMISSION = Submission(body=b"{}", input=b"", s3_config=b"", webhook=None, policy=Policy(ttl_ms=900_000))

Run = Callable[..., bool]


class Held:
    """An attempt that a worker was told to run, and the chunks of it that were acknowledged."""

    def __init__(self, worker: str, job: Job) -> None:
        self.worker = worker
        self.job = job
        self.chunks: list[bytes] = []
        self.sending = False
        self.reporter = Reporter(endpoint="ep", worker=worker, attempt=job.attempt)


class QueueMachine(RuleBasedStateMachine):
    """The queue, those who use it, and what they were told."""

    disk_class: Any
    journal_class: Any
    new_clock: Any

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.numbers = itertools.count(1)
        self.tasks: list[asyncio.Task[None]] = []
        self.shown: dict[str, Job] = {}
        self.shown_to_callers: set[str] = set()
        self.outputs: dict[str, bytes | None] = {}
        self.settled: set[str] = set()
        self.held: list[Held] = []
        self.assigned: dict[tuple[str, int], str] = {}
        self.last_takes: dict[str, str] = {}
        self.released: set[str] = set()
        self.journal = self.journal_class(self.disk_class())
        self.runner.run(self.rebuild())

    async def rebuild(self) -> None:
        self.clock = self.new_clock()
        self.queue = self.queue_on(self.journal)

    def queue_on(self, journal: Any) -> JobQueue:
        return JobQueue(journal, ServiceSettings(), now=self.clock, new_id=self.new_name, max_recent=2)

    def new_name(self) -> str:
        return str(next(self.numbers))

    @property
    def disk(self) -> Any:
        return self.journal.disk

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Start what a caller or worker does; it goes on when the disk has reported."""
        self.runner.run(self.turn(work))

    async def turn(self, work: Coroutine[Any, Any, object] | None = None) -> None:
        """Let the loop go on until nothing more happens by itself."""
        if work is not None:
            self.tasks.append(asyncio.ensure_future(self.attempt(work)))
        for _ in range(10):
            await asyncio.sleep(0)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            task.result()

    async def attempt(self, work: Coroutine[Any, Any, object]) -> None:
        with contextlib.suppress(StoreUnavailable, JobNotFound, IllegalTransition):
            await work

    # What is told

    def tell(self, job: Job, *, caller: bool = True) -> None:
        """Somebody is told of this version of the job: it must be on the disk."""
        if self.journal.dead or job.id in self.disk.forgotten:
            return
        stored = self.disk.jobs.get(job.id)
        assert stored is not None, f"job {job.id} is told and is not on the disk"
        assert stored.job.version >= job.version, f"version {job.version} of job {job.id} is told before it is written"
        if job.version >= self.shown.get(job.id, job).version:
            self.shown[job.id] = job
        if caller:
            self.shown_to_callers.add(job.id)

    def tell_end(self, job: Job, output: bytes | None) -> None:
        self.tell(job)
        if self.shown.get(job.id) is job:
            self.outputs[job.id] = output

    def tell_assigned(self, label: str, worker: str, assigned: list[Assigned]) -> None:
        if self.journal.dead:
            return
        assert not assigned or label not in self.released, "a released take gets a job"
        for job in [each.job for each in assigned]:
            self.tell(job, caller=False)
            first = self.assigned.setdefault((job.id, job.attempt), label)
            assert first == label, f"attempt {job.attempt} of job {job.id} is assigned twice"
            if not any((held.job.id, held.job.attempt) == (job.id, job.attempt) for held in self.held):
                self.held.append(Held(worker, job))

    def forget_attempts(self, job_id: str) -> None:
        """The attempt numbers of the job are used again from now on."""
        self.assigned = {key: label for key, label in self.assigned.items() if key[0] != job_id}
        self.held = [held for held in self.held if held.job.id != job_id]

    def check_shown(self) -> None:
        """What was told is on the disk."""
        for job_id, job in self.shown.items():
            stored = self.disk.jobs.get(job_id)
            if stored is None:
                assert job_id in self.disk.forgotten, f"job {job_id} was told and is gone"
                continue
            assert stored.job.version >= job.version, f"job {job_id} was told in a newer version"
            if stored.job.version == job.version and job.final:
                assert job_id not in self.outputs or self.disk.output(job_id) == self.outputs[job_id]
                is_safe = job.webhook is None or job_id in self.disk.deliveries or job_id in self.settled
                assert is_safe, f"the webhook of job {job_id} is lost"

    # Callers

    @initialize(jobs=st.integers(1, 3))
    def begin(self, jobs: int) -> None:
        """Some jobs are there, and a worker has them."""
        for number in range(jobs):
            self.submit(hook=number % 2 == 0, sync=number == 2)
        self.write_all()
        self.take("w0", named=True, wait=False, repeat="no")
        self.write_all()

    @rule(hook=st.booleans(), sync=st.booleans())
    def submit(self, hook: bool, sync: bool) -> None:
        submission = msgspec.structs.replace(SUBMISSION, webhook=HOOK if hook else None)

        async def submit() -> None:
            job = await self.queue.submit("ep", submission, sync=sync)
            if not sync:
                self.tell(job)
            ended = await self.queue.wait_end(job.id, FOREVER_S) if sync else None
            if ended is not None:
                self.tell_end(ended.job, ended.output)

        self.start(submit())

    @precondition(lambda self: self.disk.jobs)
    @rule(data=st.data(), action=st.sampled_from(["look", "look", "flush", "read", "read", "cancel", "retry"]))
    def call(self, data: st.DataObject, action: str) -> None:
        names = sorted(self.disk.jobs, key=lambda job_id: (len(job_id), job_id))
        job_id = data.draw(st.sampled_from(names))
        calls = {"look": self.look, "flush": self.flush, "read": self.read, "cancel": self.cancel, "retry": self.retry}
        self.start(calls[action](job_id))

    async def look(self, job_id: str, *, flushed: bool = False) -> None:
        job = await self.queue.get("ep", job_id)
        if job.final:
            self.tell_end(job, await self.queue.jobs.body("outputs", job_id))
        else:
            self.tell(job, caller=flushed or not job.sync)

    async def flush(self, job_id: str) -> None:
        await self.queue.flush(job_id)
        await self.look(job_id, flushed=True)

    async def read(self, job_id: str) -> None:
        read = await self.queue.read_stream("ep", job_id, FOREVER_S)
        if not self.journal.dead and job_id in self.disk.jobs:
            written = self.disk.chunks.get(self.disk.jobs[job_id].seq, [])
            assert set(read.chunks) <= set(written), "a chunk is read before it is written"

    async def cancel(self, job_id: str) -> None:
        self.tell(await self.queue.cancel("ep", job_id))

    async def retry(self, job_id: str) -> None:
        await self.queue.get("ep", job_id)
        if self.queue.jobs.get(job_id).status in (Status.FAILED, Status.TIMED_OUT):
            self.outputs.pop(job_id, None)
            self.settled.discard(job_id)
            self.forget_attempts(job_id)
        self.tell(await self.queue.retry("ep", job_id))

    # Workers

    def take_request(self, worker: str, *, named: bool = True) -> tuple[str, TakeRequest]:
        label = self.new_name()
        if named:
            self.last_takes[worker] = label
        return label, TakeRequest(endpoint="ep", worker=worker, max_jobs=2, id=label if named else "")

    @rule(
        worker=st.sampled_from(WORKERS),
        named=st.booleans(),
        wait=st.booleans(),
        repeat=st.sampled_from(["no", "last", "at once"]),
    )
    def take(self, worker: str, named: bool, wait: bool, repeat: str) -> None:
        if repeat == "last" and worker in self.last_takes:
            label = self.last_takes[worker]
            request = TakeRequest(endpoint="ep", worker=worker, max_jobs=2, id=label)
        else:
            label, request = self.take_request(worker, named=named)

        async def take() -> None:
            self.tell_assigned(label, worker, await self.queue.takes.take(request, FOREVER_S if wait else 0))

        self.start(take())
        if repeat == "at once" and request.id:
            self.start(take())

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        actions=st.lists(
            st.sampled_from(["finish", "finish", "fail", "stream", "stream", "again"]), min_size=2, max_size=4
        ),
        next_take=st.booleans(),
    )
    def work(self, data: st.DataObject, actions: list[str], next_take: bool) -> None:
        """What a worker sends about one job, faster than the disk answers."""
        held = data.draw(st.sampled_from(self.held))
        for action in actions:
            if action in ("finish", "fail"):
                self.start(self.finish(held, error=action == "fail", next_take=next_take))
            elif not held.sending:
                self.start(self.stream(held, again=action == "again"))

    async def finish(self, held: Held, *, error: bool, next_take: bool) -> None:
        report = Report(error="e") if error else Report(output=self.new_name().encode())
        label, request = self.take_request(held.worker) if next_take else ("", None)
        result = await self.queue.reports.finish(held.reporter, held.job.id, report, request)
        self.tell_finished(held, report, is_stale=result.is_stale)
        self.tell_assigned(label, held.worker, result.assigned)

    def tell_finished(self, held: Held, report: Report, *, is_stale: bool) -> None:
        if self.journal.dead or held not in self.held:
            return
        self.held.remove(held)
        if held.job.id not in self.disk.jobs:
            assert is_stale
            return
        job = self.disk.jobs[held.job.id].job
        if is_stale:
            still = job.lease is not None and job.attempt == held.job.attempt and job.lease.take == held.job.lease.take
            assert not still, f"the worker is told that it does not hold job {job.id}, and does"
            return
        assert job.version > held.job.version, f"the end of job {job.id} is acknowledged before it is written"
        if job.status is Status.COMPLETED:
            self.tell_end(job, report.output)

    async def stream(self, held: Held, *, again: bool) -> None:
        chunks = [self.new_name().encode()]
        index = len(held.chunks)
        if again and held.chunks:
            chunks, index = [held.chunks[-1], *chunks], index - 1
        held.sending = True
        try:
            result = await self.queue.reports.add_chunks(held.reporter, held.job.id, chunks, index)
        finally:
            held.sending = False
        if result.is_stale or self.journal.dead or held not in self.held:
            return
        held.chunks.append(chunks[-1])
        seq, job, _ = self.disk.jobs[held.job.id]
        if job.attempt == held.job.attempt and job.status is not Status.IN_QUEUE:
            written = self.disk.chunks.get(seq, [])[self.disk.chunk_bases.get(seq, 0) :]
            assert written[: len(held.chunks)] == held.chunks, "an acknowledged chunk is not written"

    @rule(worker=st.sampled_from(WORKERS))
    def heartbeat(self, worker: str) -> None:
        job_ids = [held.job.id for held in self.held if held.worker == worker]
        self.start(self.queue.reports.heartbeat(Reporter(endpoint="ep", worker=worker), job_ids))

    @precondition(lambda self: self.held or self.last_takes)
    @rule(data=st.data(), by_take=st.booleans())
    def release(self, data: st.DataObject, by_take: bool) -> None:
        if by_take and self.last_takes:
            worker = data.draw(st.sampled_from(sorted(self.last_takes)))
            self.start(self.do_release(worker, {self.last_takes[worker]}, []))
        elif self.held:
            held = data.draw(st.sampled_from(self.held))
            job = ReleasedJob(job_id=held.job.id, attempt=held.job.attempt, take=held.job.lease.take)
            self.start(self.do_release(held.worker, set(), [job]))

    async def do_release(self, worker: str, takes: set[str], released: list[ReleasedJob]) -> None:
        self.released |= takes
        leased = [job.id for job in self.queue.jobs.index.leased(worker) if job.lease.take in takes]
        assigned = [job_id for (job_id, _), label in self.assigned.items() if label in takes]
        for job_id in {*leased, *assigned, *(job.job_id for job in released)}:
            self.forget_attempts(job_id)
        await self.queue.takes.release("ep", worker, takes, released)

    # Webhooks, the disk; the time is in ClockRules

    @rule(delivered=st.booleans())
    def send_webhook(self, delivered: bool) -> None:
        for delivery in self.queue.jobs.deliveries.take_due(self.clock(), 1):
            if delivered:
                self.settled.add(delivery.job_id)
                self.start(self.queue.settle(delivery))
            else:
                self.start(self.queue.postpone(delivery, self.clock() + 5))

    @rule(count=st.integers(1, 8), broken=st.sets(st.integers(0, 3), max_size=2), report=st.booleans())
    def write(self, count: int, broken: set[int], report: bool) -> None:
        self.journal.run_thread(count, broken)
        assert self.disk.problems == []
        if report:
            self.runner.run(self.report_all())

    async def report_all(self) -> None:
        while self.journal.reports:
            self.journal.report()
            await self.turn()

    @rule()
    def write_all(self) -> None:
        """Nothing is under way any more: memory is what the disk says."""
        while self.journal.queued or self.journal.reports:
            self.journal.run_thread(99)
            self.runner.run(self.report_all())
        assert self.disk.problems == []
        self.check_shown()
        self.runner.run(self.check_rebuilt())

    async def check_rebuilt(self) -> None:
        rebuilt = self.queue_on(self.journal_class(copy.deepcopy(self.disk)))
        assert await picture(self.queue, self.disk) == await picture(rebuilt, self.disk)

    @rule(chance=st.integers(0, 3), power=st.booleans())
    def crash(self, chance: int, power: bool) -> None:
        """kill -9: what is written is there, all else is gone. Without power what was not durable is gone as well, with
        what only workers were told."""
        if chance:
            return
        self.restart(self.disk if power else self.journal.durable)
        if not power:
            self.held.clear()
            self.assigned.clear()
            for job_id, job in list(self.shown.items()):
                stored = self.disk.jobs.get(job_id)
                if stored is None and job_id not in self.shown_to_callers:
                    del self.shown[job_id]
                elif stored is not None and not job.final:
                    self.shown[job_id] = min(job, stored.job, key=lambda each: each.version)
        self.check_shown()

    def restart(self, disk: Any) -> None:
        self.end()
        self.journal = self.journal_class(disk)
        self.runner.run(self.rebuild())
        self.released.clear()  # only the process knew them
        for held in self.held:
            held.sending = False

    def end(self) -> None:
        """The process is dead: its tasks end, and tell nothing."""
        self.journal.die()
        self.queue.drain()
        self.runner.run(self.turn())
        for task in self.tasks:
            task.cancel()
        self.runner.run(self.turn())

    def teardown(self) -> None:
        with self.runner:
            self.end()


async def picture(queue: JobQueue, disk: Any) -> dict[str, Any]:
    """All that the memory of a queue says."""
    jobs = {job_id: queue.jobs.get(job_id) for job_id in disk.jobs}
    index = queue.jobs.index
    return {
        "jobs": jobs,
        "more": [job_id for job_id in index if job_id not in disk.jobs],
        "queued": index.head("ep", 1000),
        "leased": [sorted(job.id for job in index.leased(worker)) for worker in WORKERS],
        "due": [job.id for job in index.overdue(1e12)],
        "counts": queue.jobs.index.counts("ep"),
        "owed": {job_id: queue.jobs.deliveries.get(job_id) for job_id in disk.jobs},
        "chunks": {job_id: queue.chunks(job_id) for job_id in disk.jobs},
        "requests": {job_id: await queue.jobs.body("requests", job_id) for job_id in disk.jobs},
        "outputs": {job_id: await queue.jobs.body("outputs", job_id) for job_id in disk.jobs},
    }


@pytest.fixture
def machine(manual_journal: Any, clock_rules: type) -> type[QueueMachine]:
    disk, journal = manual_journal
    return type("Machine", (clock_rules, QueueMachine), {"disk_class": disk, "journal_class": journal})


@pytest.fixture
def run(machine: type[QueueMachine]) -> Run:
    """Runs the machine and raises what it finds; `Phase.generate` alone does not look for the shortest example."""

    def run_machine(examples: int, *phases: Phase) -> bool:
        chosen = settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            database=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=phases or tuple(Phase),
        )
        gc.collect()  # what an example leaves must not be collected while hypothesis parses this file (CPython #106905)
        run_state_machine_as_test(machine, settings=chosen)
        return True

    return run_machine
