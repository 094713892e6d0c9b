"""What the queue's memory answers, over every journal: reads and transactions."""

import asyncio

import pytest

from runpod_worker.core.errors import IllegalTransition, JobNotFound, StaleAttempt
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.core.lifecycle import (
    CancelRequested,
    Failed,
    LeaseExpired,
    LeaseRenewed,
    Retried,
    Succeeded,
    Taken,
    apply,
)
from runpod_worker.service.journal.port import Written
from runpod_worker.service.queue.index import Counts
from runpod_worker.service.queue.transaction import Transaction

HOOK = "https://receiver.example/hook"


async def taken(store, job: Job, at: float = 2000.0, worker: str = "w") -> Job:
    return await store.step(job, Taken(at=at, worker=worker))


async def completed(store, job: Job, at: float = 2001.0, output: bytes | None = b"1") -> Job:
    await taken(store, job, at - 1)
    return await store.step(job, Succeeded(at=at, worker="w"), output=output)


async def test_added_job_is_there_with_its_request(store, make_job):
    job = await store.add(make_job(webhook=HOOK, policy=Policy(ttl_ms=5)), b'{"input": 1}')

    assert store.queue.jobs.get(job.id) == job
    assert await store.committed(job.id) == job
    assert await store.queue.jobs.body("requests", job.id) == b'{"input": 1}'
    assert await store.queue.jobs.body("outputs", job.id) is None


async def test_a_job_that_need_not_be_durable_yet_can_be_made_so(store, make_job):
    job = make_job()
    await store.add(job, b"{}", durable=False)
    running = await taken(store, job)

    await store.queue.flush(job.id)
    await store.queue.flush("nobody")

    assert await store.committed(job.id) == running
    assert await store.queue.jobs.body("requests", job.id) == b"{}"


async def test_unknown_job_is_none_everywhere(store):
    assert store.queue.jobs.get("nobody") is None
    assert await store.committed("nobody") is None
    assert await store.queue.jobs.body("requests", "nobody") is None
    assert await store.queue.jobs.body("outputs", "nobody") is None
    assert store.chunks("nobody") == []
    assert store.index.head("nowhere", 5) == []
    assert store.index.counts("nowhere") == Counts()
    assert store.index.leased("nobody") == []
    assert store.index.next_due() is None
    assert store.queue.jobs.deliveries.next_at() is None


async def test_second_job_of_one_id_is_refused_and_changes_nothing(store, make_job):
    job = await store.add(make_job(), b"first")

    with pytest.raises(ValueError, match="job-1"):
        await store.add(make_job(id=job.id), b"second")

    assert await store.committed(job.id) == job
    assert await store.queue.jobs.body("requests", job.id) == b"first"
    assert store.index.counts("ep").in_queue == 1


async def test_decision_raises_at_once_and_changes_nothing(store, make_job):
    job = await taken(store, await store.add(make_job()))
    transaction = Transaction(store.queue.jobs)

    with pytest.raises(JobNotFound):
        transaction.apply("nobody", CancelRequested(at=2000))
    with pytest.raises(IllegalTransition):
        transaction.apply(job.id, Taken(at=2000, worker="other"))
    with pytest.raises(StaleAttempt):
        transaction.apply(job.id, Succeeded(at=2000, worker="other"))
    assert transaction.try_apply(job.id, Succeeded(at=2000, worker="other")) is None
    await transaction.commit()

    assert store.queue.jobs.get(job.id) == job
    assert transaction.committed


async def test_decisions_count_at_once_and_are_committed_together(store, make_job):
    first, second = await store.add(make_job()), await store.add(make_job())
    transaction = Transaction(store.queue.jobs)

    running = transaction.apply(first.id, Taken(at=2000, worker="w"))
    ended = transaction.apply(first.id, Succeeded(at=2001, worker="w"), output=b"1")
    transaction.apply(second.id, CancelRequested(at=2001))
    assert (running.status, store.queue.jobs.get(first.id)) == (Status.IN_PROGRESS, ended)
    assert store.index.counts("ep").completed == 0, "what is not committed is not told"
    await transaction.commit()

    assert await store.committed(first.id) == ended
    assert await store.queue.jobs.body("outputs", first.id) == b"1"
    assert store.index.counts("ep") == Counts(completed=1)


async def test_caller_who_goes_away_does_not_undo_the_write(store, make_job):
    job = make_job()
    adding = asyncio.ensure_future(store.add(job, b"{}"))
    await asyncio.sleep(0)

    adding.cancel()

    assert await store.committed(job.id) == job


async def test_head_is_first_in_first_out_per_endpoint(store, make_job):
    for _ in range(5):
        await store.add(make_job())
    await store.add(make_job(endpoint="other"))

    assert [job.id for job in store.index.head("ep", 3)] == ["job-1", "job-2", "job-3"]
    assert [job.id for job in store.index.head("ep", 99)] == [f"job-{number}" for number in range(1, 6)]
    assert [job.id for job in store.index.head("other", 9)] == ["job-6"]
    assert store.index.head("ep", 0) == []


async def test_jobs_of_one_moment_stay_in_the_order_of_adding(store, make_job):
    for name in "zebra", "ant", "mole":
        await store.add(make_job(id=name, created_at=5.0))

    assert [job.id for job in store.index.head("ep", 3)] == ["zebra", "ant", "mole"]


async def test_low_priority_goes_behind_normal(store, make_job):
    for low in True, False, True, False:
        await store.add(make_job(policy=Policy(low_priority=low)))

    assert [job.id for job in store.index.head("ep", 4)] == ["job-2", "job-4", "job-1", "job-3"]


async def test_requeued_job_goes_back_to_its_old_place(store, make_job):
    jobs = [await store.add(make_job()) for _ in range(3)]
    running = await taken(store, jobs[0])
    assert [job.id for job in store.index.head("ep", 9)] == ["job-2", "job-3"]

    await store.step(running, LeaseExpired(at=3000))

    assert [job.id for job in store.index.head("ep", 9)] == ["job-1", "job-2", "job-3"]


async def test_retried_job_queues_as_a_new_one(store, make_job):
    first, second = await store.add(make_job()), await store.add(make_job())
    failed = await store.step(await taken(store, first), Failed(at=2002, worker="w", error="e"))

    await store.step(failed, Retried(at=2003))

    assert [job.id for job in store.index.head("ep", 9)] == [second.id, first.id]


async def test_cancelled_jobs_leave_the_queue(store, make_job):
    jobs = [make_job() for _ in range(200)]
    await asyncio.gather(*(store.add(job, b"") for job in jobs))
    await asyncio.gather(*(store.step(job, CancelRequested(at=2000)) for job in jobs[1:]))

    assert store.index.head("ep", 10) == [jobs[0]]


async def test_job_may_be_taken_at_birth(store, make_job):
    job = await store.add(apply(make_job(), Taken(at=1001, worker="w")))

    assert store.index.head("ep", 9) == []
    assert store.index.leased("w") == [job]
    assert store.index.counts("ep") == Counts(in_progress=1)


async def test_job_may_be_final_at_birth(store, make_job):
    job = await store.add(apply(make_job(webhook=HOOK), CancelRequested(at=2000)))

    assert await store.committed(job.id) == job
    assert [row.job_id for row in store.due_deliveries(2000, 9)] == [job.id]


async def test_counts_are_gauges_and_counters(store, make_job):
    jobs = [await store.add(make_job()) for _ in range(6)]
    await completed(store, jobs[0])
    await store.step(await taken(store, jobs[1]), Failed(at=2001, worker="w", error="e"))
    await store.step(jobs[2], CancelRequested(at=2001))
    await store.step(await taken(store, jobs[3]), LeaseExpired(at=2001))
    await taken(store, jobs[4])

    assert store.index.counts("ep") == Counts(in_queue=2, in_progress=1, completed=1, failed=1, retried=1)


async def test_counters_outlive_the_jobs(store, make_job):
    await completed(store, await store.add(make_job()))
    await store.forget(9e9, 9e9)

    assert store.index.counts("ep") == Counts(completed=1)


async def test_leased_knows_what_each_worker_holds(store, make_job):
    first, second, third = [await store.add(make_job()) for _ in range(3)]
    mine = [await taken(store, first, worker="me"), await taken(store, second, worker="me")]
    other = await taken(store, third, worker="you")

    assert store.index.leased("me") == mine
    assert store.index.leased("you") == [other]

    await store.step(other, Succeeded(at=2001, worker="you"))
    assert store.index.leased("you") == []


async def test_lease_still_holds_at_its_end(store, make_job):
    job = await store.add(make_job())
    running = await store.step(job, Taken(at=2000, worker="w", lease_s=40))

    assert store.index.overdue(2040.0) == []
    assert store.index.overdue(2040.001) == [running]
    assert 2040.0 < store.index.next_due() < 2040.001


async def test_heartbeat_extends_the_lease(store, make_job):
    running = await store.step(await store.add(make_job()), Taken(at=2000, worker="w", lease_s=40))

    renewed = await store.step(running, LeaseRenewed(at=2030, worker="w", lease_s=40))

    assert store.index.overdue(2041) == []
    assert store.index.overdue(2071) == [renewed]
    assert store.index.next_due() == renewed.due_at


async def test_overdue_names_each_job_once_and_earliest_first(store, make_job):
    late = await store.add(make_job(policy=Policy(ttl_ms=9_000), created_at=10.0))
    early = await store.add(make_job(policy=Policy(ttl_ms=1_000), created_at=10.0))
    await store.add(make_job(policy=Policy(ttl_ms=99_000), created_at=10.0))

    assert store.index.next_due() == 11.0
    assert store.index.overdue(10.9) == []
    assert store.index.overdue(11.0) == [early]
    assert store.index.overdue(50.0) == [early, late]
    assert store.index.overdue(50.0) == [early, late]


async def test_deadline_of_a_running_job_is_due(store, make_job):
    job = await store.add(make_job(policy=Policy(execution_timeout_ms=5_000)))
    running = await taken(store, job, at=2000)

    assert store.index.next_due() == 2005.0
    assert store.index.overdue(2005.0) == [running]


async def test_job_that_is_being_stopped_waits_for_its_lease_only(store, make_job):
    job = await store.add(make_job(policy=Policy(execution_timeout_ms=5_000)))
    running = await store.step(job, Taken(at=2000, worker="w", lease_s=40, confirms=True))
    stopping = await store.step(running, CancelRequested(at=2001))

    assert store.index.overdue(2040) == []
    assert store.index.overdue(2041) == [stopping]


async def test_final_jobs_are_never_due(store, make_job):
    await completed(store, await store.add(make_job()))

    assert store.index.next_due() is None
    assert store.index.overdue(9e9) == []


@pytest.mark.parametrize(
    "output",
    [b"null", b"[]", b'""', '{"a": "\u00fc\u20ac\U0001f600"}'.encode(), b'"\\u0000"', b"\x00\xff", b"x" * 2**20],
    ids=["null", "empty list", "empty text", "unicode", "escaped nul", "not text", "1 MB"],
)
async def test_output_comes_back_byte_for_byte(store, make_job, output):
    job = await completed(store, await store.add(make_job(), output), output=output)

    assert await store.queue.jobs.body("outputs", job.id) == output
    assert await store.queue.jobs.body("requests", job.id) == output


async def test_latest_output_wins_and_can_be_dropped(store, make_job):
    running = await taken(store, await store.add(make_job()))
    running = await store.step(running, LeaseRenewed(at=2001, worker="w"), output=b"10 %")
    assert await store.queue.jobs.body("outputs", running.id) == b"10 %"

    running = await store.step(running, LeaseRenewed(at=2002, worker="w"))
    assert await store.queue.jobs.body("outputs", running.id) == b"10 %"

    failed = await store.step(running, Failed(at=2003, worker="w", error="e"))
    assert await store.queue.jobs.body("outputs", failed.id) is None


async def test_a_caller_who_looks_before_the_transaction_has_heard_of_its_commit_is_answered(store, make_job):
    job = await store.add(make_job())
    written = Written()
    written.set_result(None)
    store.queue.jobs.track(written, [job.id])
    asyncio.get_running_loop().call_soon(store.queue.jobs.untrack, written, [job.id])

    assert await asyncio.wait_for(store.committed(job.id), 20) == job
