"""After any history, the index is the index rebuilt from the journal: SQLite's, reopened whenever hypothesis likes,
answers what one in memory answers that was never rebuilt."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job, Policy
from runpod_worker.core.lifecycle import (
    CancelRequested,
    Event,
    Expired,
    Failed,
    LeaseExpired,
    LeaseRenewed,
    Released,
    Retried,
    Succeeded,
    Taken,
)
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.journal.sqlite import SqliteJournal
from runpod_worker.service.queue.queue import JobQueue
from runpod_worker.service.queue.transaction import Transaction
from runpod_worker.service.settings import ServiceSettings

ENDPOINTS = ("ep0", "ep1")
WORKERS = ("w0", "w1")


def body_of(text: str) -> bytes:
    return b"y" * 70_000 if text == "larger than what is cached" else text.encode()


bodies = st.sampled_from(["null", "[]", "", "\u20ac\0", "larger than what is cached"]).map(body_of)
workers = st.sampled_from(WORKERS)


class Rebuild(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.db"
        self.memory = self.runner.run(self.opened(NullJournal()))
        self.sqlite = self.runner.run(self.opened(SqliteJournal(self.path)))
        self.clock = 1000.0
        self.number = 0

    async def opened(self, journal) -> JobQueue:
        return JobQueue(journal, ServiceSettings(), now=lambda: self.clock, max_recent=2)

    def both(self, call):
        """What both queues answer to the same call; they must agree, errors too."""

        async def ask(queue):
            try:
                answer = call(queue)
                return await answer if asyncio.iscoroutine(answer) else answer
            except JobNotFound as exc:
                return repr(exc)

        expected, answer = self.runner.run(ask(self.memory)), self.runner.run(ask(self.sqlite))
        assert answer == expected
        return answer

    def change(self, decide) -> None:
        """The same decisions in both, in one commit."""

        async def commit(queue):
            transaction = Transaction(queue.jobs)
            decided = decide(transaction)
            await transaction.commit()
            return decided

        self.both(commit)

    def tick(self) -> float:
        self.clock += 1.0
        return self.clock

    @rule(
        target=jobs,
        endpoint=st.sampled_from(ENDPOINTS),
        low=st.booleans(),
        hook=st.booleans(),
        sync=st.booleans(),
        body=bodies,
    )
    def add(self, endpoint: str, low: bool, hook: bool, sync: bool, body: bytes) -> str:
        self.number += 1
        at = self.tick()
        job = Job(
            id=f"job-{self.number}",
            endpoint=endpoint,
            created_at=at,
            queued_at=at,
            policy=Policy(low_priority=low, ttl_ms=60_000),
            webhook="http://x/" if hook else None,
            sync=sync,
        )
        self.change(lambda transaction: transaction.add(job, body))
        return job.id

    def worker_of(self, job_id: str) -> str:
        job = self.both(lambda queue: queue.jobs.get(job_id))
        return (job and job.worker) or ""

    def happen(self, job_id: str, *events: Event, output: bytes | None = None) -> None:
        """Apply the events to the job, as far as its status allows."""
        self.change(lambda transaction: [transaction.try_apply(job_id, event) for event in events[:-1]])
        if output is None:
            self.change(lambda transaction: transaction.try_apply(job_id, events[-1]))
        elif self.worker_of(job_id):
            job = self.both(lambda queue: queue.jobs.get(job_id))
            if job.lease is not None:
                self.change(lambda transaction: transaction.apply(job_id, events[-1], output=output))

    @rule(job=jobs, worker=workers)
    def take(self, job: str, worker: str) -> None:
        self.happen(job, Taken(at=self.tick(), worker=worker, lease_s=10))

    @rule(job=jobs, output=st.none() | bodies)
    def renew(self, job: str, output: bytes | None) -> None:
        self.happen(job, LeaseRenewed(at=self.tick(), worker=self.worker_of(job), lease_s=10), output=output)

    @rule(job=jobs, output=st.none() | bodies)
    def succeed(self, job: str, output: bytes | None) -> None:
        self.happen(job, Succeeded(at=self.tick(), worker=self.worker_of(job)), output=output)

    @rule(job=jobs, output=st.none() | bodies)
    def fail(self, job: str, output: bytes | None) -> None:
        self.happen(job, Failed(at=self.tick(), worker=self.worker_of(job), error="\u20ac"), output=output)

    @rule(job=jobs, kind=st.sampled_from([CancelRequested, Expired, LeaseExpired, Retried]))
    def other(self, job: str, kind: type[Event]) -> None:
        self.happen(job, kind(at=self.tick()))

    @rule(job=jobs, worker=workers)
    def take_and_lose(self, job: str, worker: str) -> None:
        self.happen(job, Taken(at=self.tick(), worker=worker), LeaseExpired(at=self.tick()))

    @rule(job=jobs)
    def release(self, job: str) -> None:
        self.happen(job, Released(at=self.tick(), worker=self.worker_of(job)))

    @rule(job=jobs, index=st.none() | st.integers(0, 4), chunks=st.lists(bodies, min_size=1, max_size=3))
    def stream(self, job: str, index: int | None, chunks: list[bytes]) -> None:
        self.change(lambda transaction: transaction.add_chunks(job, chunks, index))

    @rule(target=deliveries)
    def pull(self):
        due = self.both(lambda queue: queue.jobs.deliveries.take_due(self.clock, 1, 0.5))
        return due[0] if due else None

    @rule(delivery=consumes(deliveries), later=st.integers(1, 9))
    def postpone(self, delivery, later: int) -> None:
        if delivery is not None:
            self.both(lambda queue: queue.postpone(delivery, self.clock + later))

    @rule(delivery=consumes(deliveries))
    def settle(self, delivery) -> None:
        if delivery is not None:
            self.both(lambda queue: queue.settle(delivery))

    @rule(age=st.integers(0, 20), sync=st.booleans())
    def forget(self, age: int, sync: bool) -> None:
        self.both(lambda queue: queue.sweep.forget(self.clock - age, sync=sync))

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.sqlite.jobs.journal.close())
        self.sqlite = self.runner.run(self.opened(SqliteJournal(self.path)))
        for queue in self.memory, self.sqlite:  # holds are lost in a restart: take them out of the comparison
            queue.jobs.deliveries.take_due(self.clock, 10**6, 0.25)
        self.clock += 1

    @rule(job=jobs)
    def look(self, job: str) -> None:
        self.both(lambda queue: queue.jobs.get_committed(job))
        self.both(lambda queue: queue.jobs.body("requests", job))
        self.both(lambda queue: queue.jobs.body("outputs", job))
        self.both(lambda queue: queue.chunks(job))

    @invariant()
    def same_everywhere(self) -> None:
        for endpoint in ENDPOINTS:
            self.both(lambda queue, endpoint=endpoint: queue.jobs.index.head(endpoint, 99))
            self.both(lambda queue, endpoint=endpoint: queue.jobs.index.counts(endpoint))
        for worker in WORKERS:
            self.both(lambda queue, worker=worker: sorted(job.id for job in queue.jobs.index.leased(worker)))
        self.both(lambda queue: [job.id for job in queue.jobs.index.overdue(self.clock)])
        self.both(lambda queue: queue.jobs.index.next_due())

    def teardown(self) -> None:
        self.runner.run(self.sqlite.jobs.journal.close())
        self.runner.close()
        self.folder.cleanup()


TestRebuild = Rebuild.TestCase
TestRebuild.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
