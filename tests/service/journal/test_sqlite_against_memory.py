"""Random lives of random jobs: SQLite, reopened whenever hypothesis likes, says what memory says."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from runpod_worker.core.errors import IllegalTransition, StaleAttempt
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
    apply,
)
from runpod_worker.service.journal.memory import MemoryStore
from runpod_worker.service.journal.sqlite import SqliteStore

ENDPOINTS = ("ep0", "ep1")
WORKERS = ("w0", "w1")


def body_of(text: str) -> bytes:
    return b"y" * 70_000 if text == "larger than what is kept hot" else text.encode()


bodies = st.sampled_from(["null", "[]", "", "\u20ac\0", "larger than what is kept hot"]).map(body_of)
workers = st.sampled_from(WORKERS)


class Stores(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    deliveries = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "jobs.db"
        self.memory = MemoryStore()
        self.sqlite = self.runner.run(self.opened())
        self.clock = 1000.0
        self.number = 0

    async def opened(self) -> SqliteStore:
        return SqliteStore(self.path, recent_jobs=2)

    def both(self, call):
        """What both stores answer to the same call; they must agree, errors too."""

        async def one(store):
            try:
                found = call(store)
                return await found if asyncio.iscoroutine(found) else found
            except ValueError as exc:
                return str(exc)

        expected, found = self.runner.run(one(self.memory)), self.runner.run(one(self.sqlite))
        assert found == expected
        return found

    def tick(self) -> float:
        self.clock += 1.0
        return self.clock

    @initialize()
    def start(self) -> None:
        assert self.sqlite.endpoints() == set()

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
        self.both(lambda store: store.add(job, body))
        return job.id

    def happen(self, job_id: str, make, **also) -> None:
        """Apply the event to the job if its status allows it."""
        job = self.both(lambda store: store.get(job_id))
        if job is None:
            return
        try:
            new = apply(job, make(job))
        except (IllegalTransition, StaleAttempt):
            return
        assert self.both(lambda store: store.swap(job, new, **also)) is True
        assert self.both(lambda store: store.swap(job, new, **also)) is False

    @rule(job=jobs, worker=workers)
    def take(self, job: str, worker: str) -> None:
        self.happen(job, lambda _: Taken(at=self.tick(), worker=worker, lease_s=10))

    @rule(job=jobs, output=st.none() | bodies)
    def beat(self, job: str, output: bytes | None) -> None:
        self.happen(job, lambda old: LeaseRenewed(at=self.tick(), worker=old.worker or "", lease_s=10), output=output)

    @rule(job=jobs, output=st.none() | bodies)
    def succeed(self, job: str, output: bytes | None) -> None:
        self.happen(job, lambda old: Succeeded(at=self.tick(), worker=old.worker or ""), output=output)

    @rule(job=jobs, drop=st.booleans())
    def fail(self, job: str, drop: bool) -> None:
        self.happen(job, lambda old: Failed(at=self.tick(), worker=old.worker or "", error="\u20ac"), drop_output=drop)

    @rule(job=jobs, kind=st.sampled_from([CancelRequested, Expired, LeaseExpired, Retried]))
    def other(self, job: str, kind: type[Event]) -> None:
        self.happen(job, lambda _: kind(at=self.tick()))

    @rule(job=jobs)
    def give_back(self, job: str) -> None:
        self.happen(job, lambda old: Released(at=self.tick(), worker=old.worker or ""))

    @rule(job=jobs, index=st.integers(0, 4), chunks=st.lists(bodies, min_size=1, max_size=3))
    def append(self, job: str, index: int, chunks: list[bytes]) -> None:
        if self.both(lambda store: store.get(job)) is not None:
            self.both(lambda store: store.append(job, index, chunks))

    @rule(target=deliveries)
    def pull(self):
        found = self.both(lambda store: store.deliveries(self.clock, 1, 0.5))
        return found[0] if found else None

    @rule(delivery=consumes(deliveries), later=st.integers(1, 9))
    def postpone(self, delivery, later: int) -> None:
        if delivery is not None:
            self.both(lambda store: store.postpone(delivery, self.clock + later))

    @rule(delivery=consumes(deliveries))
    def settle(self, delivery) -> None:
        if delivery is not None:
            self.both(lambda store: store.settle(delivery))

    @rule(age=st.integers(0, 20), sync_age=st.integers(0, 20))
    def forget(self, age: int, sync_age: int) -> None:
        self.both(lambda store: store.forget(self.clock - age, self.clock - sync_age))

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.sqlite.close())
        self.sqlite = self.runner.run(self.opened())
        for store in self.memory, self.sqlite:  # holds are forgotten by a restart: take them out of the comparison
            self.runner.run(store.deliveries(self.clock, 10**6, 0.25))
        self.clock += 1

    @rule(job=jobs, start=st.integers(0, 4))
    def look(self, job: str, start: int) -> None:
        self.both(lambda store: store.settled(job))
        self.both(lambda store: store.request(job))
        self.both(lambda store: store.output(job))
        self.both(lambda store: store.chunks(job, start))

    @invariant()
    def same_everywhere(self) -> None:
        for endpoint in ENDPOINTS:
            self.both(lambda store, endpoint=endpoint: store.head(endpoint, 2))
            self.both(lambda store, endpoint=endpoint: store.queued(endpoint))
            self.both(lambda store, endpoint=endpoint: store.counts(endpoint))
        for worker in WORKERS:
            self.both(lambda store, worker=worker: sorted(job.id for job in store.leased(worker)))
        self.both(lambda store: [job.id for job in store.overdue(self.clock)])
        self.both(lambda store: store.next_due())

    def teardown(self) -> None:
        self.runner.run(self.sqlite.close())
        self.runner.close()
        self.folder.cleanup()


TestSqliteAgainstMemory = Stores.TestCase
TestSqliteAgainstMemory.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
