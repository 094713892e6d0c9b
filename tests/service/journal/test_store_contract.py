"""What every store promises (the docstrings of `runpod_worker.service.journal.port`), over every store there is."""

import asyncio

import pytest

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.core.lifecycle import (
    CancelRequested,
    Event,
    Failed,
    LeaseExpired,
    LeaseRenewed,
    Retried,
    Succeeded,
    Taken,
    apply,
)
from runpod_worker.service.journal.port import Counts, Delivery

HOOK = "https://receiver.example/hook"


async def step(store, job: Job, event: Event, **bodies) -> Job:
    new = apply(job, event)
    assert await store.swap(job, new, **bodies)
    return new


async def added(store, job: Job, request: bytes = b"{}") -> Job:
    await store.add(job, request)
    return job


async def taken(store, job: Job, at: float = 2000.0, worker: str = "w") -> Job:
    return await step(store, job, Taken(at=at, worker=worker))


async def completed(store, job: Job, at: float = 2001.0, output: bytes | None = b"1") -> Job:
    running = await taken(store, job, at - 1)
    return await step(store, running, Succeeded(at=at, worker="w"), output=output)


async def test_added_job_is_there_with_its_request(store, make_job):
    job = await added(store, make_job(webhook=HOOK, policy=Policy(ttl_ms=5)), b'{"input": 1}')

    assert store.get(job.id) == job
    assert await store.settled(job.id) == job
    assert await store.request(job.id) == b'{"input": 1}'
    assert await store.output(job.id) is None


async def test_a_job_that_need_not_be_durable_yet_can_be_made_so(store, make_job):
    job = make_job()
    await store.add(job, b"{}", durable=False)
    running = await taken(store, job)

    await store.secure(job.id)
    await store.secure("nobody")

    assert await store.settled(job.id) == running
    assert await store.request(job.id) == b"{}"


async def test_unknown_job_is_none_everywhere(store):
    assert store.get("nobody") is None
    assert await store.settled("nobody") is None
    assert await store.request("nobody") is None
    assert await store.output("nobody") is None
    assert store.chunks("nobody", 0) == []
    assert store.head("nowhere", 5) == []
    assert store.counts("nowhere") == Counts()
    assert store.leased("nobody") == []
    assert store.next_due() is None
    assert store.next_delivery() is None


async def test_second_job_of_one_id_is_refused_and_changes_nothing(store, make_job):
    job = await added(store, make_job(), b"first")

    with pytest.raises(ValueError, match="job-1"):
        await store.add(make_job(id=job.id), b"second")

    assert await store.settled(job.id) == job
    assert await store.request(job.id) == b"first"
    assert store.counts("ep").in_queue == 1


async def test_swap_replaces_the_job(store, make_job):
    job = await added(store, make_job())

    running = await taken(store, job)

    assert store.get(job.id) == running
    assert await store.settled(job.id) == running


async def test_swap_loses_to_a_newer_version(store, make_job):
    job = await added(store, make_job())
    await taken(store, job)

    lost = await store.swap(job, apply(job, CancelRequested(at=2000)), output=b"no")

    assert lost is False
    assert store.get(job.id).status is Status.IN_PROGRESS
    assert await store.output(job.id) is None


async def test_swap_of_an_unknown_job_loses(store, make_job):
    job = make_job()

    assert await store.swap(job, apply(job, CancelRequested(at=2000))) is False


async def test_one_job_goes_to_one_of_twenty_takers(store, make_job):
    job = await added(store, make_job())

    won = await asyncio.gather(
        *(store.swap(job, apply(job, Taken(at=2000, worker=f"w{number}"))) for number in range(20))
    )

    assert sum(won) == 1
    assert (await store.settled(job.id)).worker == "w0"


async def test_newest_version_decides_while_its_write_is_under_way(store, make_job):
    job = await added(store, make_job())
    first = asyncio.ensure_future(taken(store, job))
    await asyncio.sleep(0)

    running = store.get(job.id)
    second = await store.swap(running, apply(running, Succeeded(at=2001, worker="w")), output=b"1")

    assert second is True
    assert (await first).status is Status.IN_PROGRESS
    assert (await store.settled(job.id)).status is Status.COMPLETED


async def test_caller_who_goes_away_does_not_undo_the_write(store, make_job):
    job = make_job()
    adding = asyncio.ensure_future(store.add(job, b"{}"))
    await asyncio.sleep(0)

    adding.cancel()

    assert await store.settled(job.id) == job


async def test_head_is_first_in_first_out_per_endpoint(store, make_job):
    for _ in range(5):
        await added(store, make_job())
    await added(store, make_job(endpoint="other"))

    assert [job.id for job in store.head("ep", 3)] == ["job-1", "job-2", "job-3"]
    assert [job.id for job in store.head("ep", 99)] == [f"job-{number}" for number in range(1, 6)]
    assert [job.id for job in store.head("other", 9)] == ["job-6"]
    assert store.head("ep", 0) == []
    assert store.queued("ep") == store.head("ep", 99)


async def test_jobs_of_one_moment_stay_in_the_order_of_adding(store, make_job):
    for name in "zebra", "ant", "mole":
        await added(store, make_job(id=name, created_at=5.0))

    assert [job.id for job in store.head("ep", 3)] == ["zebra", "ant", "mole"]


async def test_low_priority_goes_behind_normal(store, make_job):
    for low in True, False, True, False:
        await added(store, make_job(policy=Policy(low_priority=low)))

    assert [job.id for job in store.head("ep", 4)] == ["job-2", "job-4", "job-1", "job-3"]


async def test_requeued_job_goes_back_to_its_old_place(store, make_job):
    jobs = [await added(store, make_job()) for _ in range(3)]
    running = await taken(store, jobs[0])
    assert [job.id for job in store.head("ep", 9)] == ["job-2", "job-3"]

    await step(store, running, LeaseExpired(at=3000))

    assert [job.id for job in store.head("ep", 9)] == ["job-1", "job-2", "job-3"]


async def test_retried_job_queues_as_a_new_one(store, make_job):
    first, second = await added(store, make_job()), await added(store, make_job())
    failed = await step(store, await taken(store, first), Failed(at=2002, worker="w", error="e"))

    await step(store, failed, Retried(at=2003))

    assert [job.id for job in store.head("ep", 9)] == [second.id, first.id]


async def test_cancelled_jobs_leave_the_queue(store, make_job):
    jobs = [make_job() for _ in range(200)]
    await asyncio.gather(*(store.add(job, b"") for job in jobs))
    await asyncio.gather(*(step(store, job, CancelRequested(at=2000)) for job in jobs[1:]))

    assert store.head("ep", 10) == [jobs[0]]


async def test_job_may_be_taken_at_birth(store, make_job):
    job = await added(store, apply(make_job(), Taken(at=1001, worker="w")))

    assert store.head("ep", 9) == []
    assert store.leased("w") == [job]
    assert store.counts("ep") == Counts(in_progress=1)


async def test_job_may_be_final_at_birth(store, make_job):
    job = await added(store, apply(make_job(webhook=HOOK), CancelRequested(at=2000)))

    assert await store.settled(job.id) == job
    assert [row.job_id for row in await store.deliveries(2000, 9)] == [job.id]


async def test_counts_are_gauges_and_counters(store, make_job):
    jobs = [await added(store, make_job()) for _ in range(6)]
    await completed(store, jobs[0])
    await step(store, await taken(store, jobs[1]), Failed(at=2001, worker="w", error="e"))
    await step(store, jobs[2], CancelRequested(at=2001))
    await step(store, await taken(store, jobs[3]), LeaseExpired(at=2001))
    await taken(store, jobs[4])

    assert store.counts("ep") == Counts(in_queue=2, in_progress=1, completed=1, failed=1, retried=1)
    assert store.endpoints() == {"ep"}


async def test_counters_outlive_the_jobs(store, make_job):
    await completed(store, await added(store, make_job()))
    await store.forget(9e9, 9e9)

    assert store.counts("ep") == Counts(completed=1)


async def test_leased_knows_what_each_worker_holds(store, make_job):
    first, second, third = [await added(store, make_job()) for _ in range(3)]
    mine = [await taken(store, first, worker="me"), await taken(store, second, worker="me")]
    other = await taken(store, third, worker="you")

    assert store.leased("me") == mine
    assert store.leased("you") == [other]

    await step(store, other, Succeeded(at=2001, worker="you"))
    assert store.leased("you") == []


async def test_lease_still_holds_at_its_end(store, make_job):
    job = await added(store, make_job())
    running = await step(store, job, Taken(at=2000, worker="w", lease_s=40))

    assert store.overdue(2040.0) == []
    assert store.overdue(2040.001) == [running]
    assert 2040.0 < store.next_due() < 2040.001


async def test_beat_moves_the_lease_on(store, make_job):
    running = await step(store, await added(store, make_job()), Taken(at=2000, worker="w", lease_s=40))

    beaten = await step(store, running, LeaseRenewed(at=2030, worker="w", lease_s=40))

    assert store.overdue(2041) == []
    assert store.overdue(2071) == [beaten]
    assert store.next_due() == beaten.due_at


async def test_overdue_names_each_job_once_and_earliest_first(store, make_job):
    late = await added(store, make_job(policy=Policy(ttl_ms=9_000), created_at=10.0))
    early = await added(store, make_job(policy=Policy(ttl_ms=1_000), created_at=10.0))
    await added(store, make_job(policy=Policy(ttl_ms=99_000), created_at=10.0))

    assert store.next_due() == 11.0
    assert store.overdue(10.9) == []
    assert store.overdue(11.0) == [early]
    assert store.overdue(50.0) == [early, late]
    assert store.overdue(50.0) == [early, late]


async def test_deadline_of_a_running_job_is_due(store, make_job):
    job = await added(store, make_job(policy=Policy(execution_timeout_ms=5_000)))
    running = await taken(store, job, at=2000)

    assert store.next_due() == 2005.0
    assert store.overdue(2005.0) == [running]


async def test_job_that_is_being_stopped_waits_for_its_lease_only(store, make_job):
    job = await added(store, make_job(policy=Policy(execution_timeout_ms=5_000)))
    running = await step(store, job, Taken(at=2000, worker="w", lease_s=40, confirms=True))
    stopping = await step(store, running, CancelRequested(at=2001))

    assert store.overdue(2040) == []
    assert store.overdue(2041) == [stopping]


async def test_final_jobs_are_never_due(store, make_job):
    await completed(store, await added(store, make_job()))

    assert store.next_due() is None
    assert store.overdue(9e9) == []


@pytest.mark.parametrize(
    "output",
    [b"null", b"[]", b'""', '{"a": "\u00fc\u20ac\U0001f600"}'.encode(), b'"\\u0000"', b"\x00\xff", b"x" * 2**20],
    ids=["null", "empty list", "empty text", "unicode", "escaped nul", "not text", "1 MB"],
)
async def test_output_comes_back_byte_for_byte(store, make_job, output):
    job = await completed(store, await added(store, make_job(), output), output=output)

    assert await store.output(job.id) == output
    assert await store.request(job.id) == output


async def test_latest_output_wins_and_can_be_dropped(store, make_job):
    running = await taken(store, await added(store, make_job()))
    running = await step(store, running, LeaseRenewed(at=2001, worker="w"), output=b"10 %")
    assert await store.output(running.id) == b"10 %"

    running = await step(store, running, LeaseRenewed(at=2002, worker="w"))
    assert await store.output(running.id) == b"10 %"

    failed = await step(store, running, Failed(at=2003, worker="w", error="e"), drop_output=True)
    assert await store.output(failed.id) is None


async def test_final_job_and_its_delivery_appear_together(store, make_job):
    running = await taken(store, await added(store, make_job(webhook=HOOK)))
    assert store.next_delivery() is None

    final = await step(store, running, Succeeded(at=2005.0, worker="w"), output=b"1")

    assert store.next_delivery() == 2005.0
    assert await store.deliveries(2004.9, 9) == []
    assert await store.deliveries(2005.0, 9) == [Delivery(job_id=final.id, url=HOOK, tries=0, next_at=2005.0)]


async def test_no_webhook_no_delivery(store, make_job):
    await completed(store, await added(store, make_job()))

    assert store.next_delivery() is None


async def test_delivery_is_handed_out_once_until_its_hold_is_over(store, make_job):
    await completed(store, await added(store, make_job(webhook=HOOK)), at=2001.0)

    [first] = await store.deliveries(3000, 9, hold_s=60)

    assert await store.deliveries(3059, 9) == []
    assert store.next_delivery() == 3060
    assert await store.deliveries(3060, 9) == [first]


async def test_deliveries_come_oldest_first_and_at_most_as_many_as_asked(store, make_job):
    for at in 2003.0, 2001.0, 2002.0:
        await completed(store, await added(store, make_job(webhook=HOOK)), at=at)

    assert [row.next_at for row in await store.deliveries(9000, 2)] == [2001.0, 2002.0]
    assert [row.next_at for row in await store.deliveries(9000, 2)] == [2003.0]


async def test_postponed_delivery_comes_again_later(store, make_job):
    await completed(store, await added(store, make_job(webhook=HOOK)))
    [delivery] = await store.deliveries(3000, 9)

    await store.postpone(delivery, 3005.5)

    assert store.next_delivery() == 3005.5
    assert await store.deliveries(3005, 9) == []
    [again] = await store.deliveries(3005.5, 9)
    assert (again.tries, again.next_at) == (1, 3005.5)


async def test_settled_delivery_is_gone(store, make_job):
    await completed(store, await added(store, make_job(webhook=HOOK)))
    [delivery] = await store.deliveries(3000, 9)

    await store.settle(delivery)
    await store.settle(delivery)

    assert store.next_delivery() is None


async def test_late_answer_to_an_old_delivery_leaves_the_new_one(store, make_job):
    running = await taken(store, await added(store, make_job(webhook=HOOK)))
    failed = await step(store, running, Failed(at=2001.0, worker="w", error="e"))
    [old] = await store.deliveries(2001, 9)
    again = await step(store, failed, Retried(at=2002.0))
    assert store.next_delivery() is None
    await completed(store, again, at=2010.0)

    await store.settle(old)
    await store.postpone(old, 99.0)

    assert [row.next_at for row in await store.deliveries(2010, 9)] == [2010.0]


async def test_chunks_come_in_order_from_any_index(store, make_job):
    job = await taken(store, await added(store, make_job()))

    assert await store.append(job.id, 0, [b"a", b"b"]) == 2
    assert await store.append(job.id, 2, [b"c"]) == 3

    assert store.chunks(job.id, 0) == [b"a", b"b", b"c"]
    assert store.chunks(job.id, 2) == [b"c"]
    assert store.chunks(job.id, 3) == []
    assert store.chunks(job.id, 99) == []


async def test_chunks_sent_again_are_dropped(store, make_job):
    job = await taken(store, await added(store, make_job()))
    await store.append(job.id, 0, [b"a", b"b"])

    assert await store.append(job.id, 0, [b"A", b"B"]) == 2
    assert await store.append(job.id, 1, [b"B", b"c"]) == 3

    assert store.chunks(job.id, 0) == [b"a", b"b", b"c"]


async def test_chunks_that_leave_a_gap_are_refused(store, make_job):
    job = await taken(store, await added(store, make_job()))
    await store.append(job.id, 0, [b"a"])

    with pytest.raises(ValueError, match="index"):
        await store.append(job.id, 2, [b"c"])
    with pytest.raises(ValueError, match="index"):
        await store.append(job.id, -1, [b"c"])

    assert store.chunks(job.id, 0) == [b"a"]


async def test_chunks_of_an_unknown_job_are_refused(store):
    with pytest.raises(JobNotFound):
        await store.append("nobody", 0, [b"a"])


async def test_chunks_posted_at_once_keep_their_order(store, make_job):
    job = await taken(store, await added(store, make_job()))

    await asyncio.gather(*(store.append(job.id, number, [b"%d" % number]) for number in range(50)))

    assert store.chunks(job.id, 0) == [b"%d" % number for number in range(50)]


async def test_chunks_stay_with_the_final_job_and_go_when_it_is_retried(store, make_job):
    job = await taken(store, await added(store, make_job()))
    await store.append(job.id, 0, [b"a"])
    failed = await step(store, job, Failed(at=2001, worker="w", error="e"))
    assert store.chunks(job.id, 0) == [b"a"]

    again = await step(store, failed, Retried(at=2002))

    assert store.chunks(job.id, 0) == []
    await taken(store, again)
    assert await store.append(job.id, 0, [b"new"]) == 1
    assert store.chunks(job.id, 0) == [b"new"]


async def test_forget_deletes_what_ended_before_its_time(store, make_job):
    old = await completed(store, await added(store, make_job()), at=2001.0)
    new = await completed(store, await added(store, make_job()), at=3001.0)
    sync = await completed(store, await added(store, make_job(sync=True)), at=2500.0)
    running = await taken(store, await added(store, make_job()))
    await store.append(running.id, 0, [b"a"])

    assert await store.forget(3000.0, 2500.0) == 1
    assert await store.settled(old.id) is None
    assert await store.request(old.id) is None
    assert await store.output(old.id) is None
    assert await store.settled(sync.id) == sync

    assert await store.forget(3001.0, 2600.0) == 1
    assert await store.settled(sync.id) is None
    assert await store.settled(new.id) == new
    assert await store.settled(running.id) == running
    assert store.chunks(running.id, 0) == [b"a"]


async def test_two_sweeps_at_once_count_each_job_once(store, make_job):
    jobs = [apply(make_job(), CancelRequested(at=2000)) for _ in range(30)]
    await asyncio.gather(*(store.add(job, b"") for job in jobs))

    counted = await asyncio.gather(store.forget(9e9, 9e9), store.forget(9e9, 9e9))

    assert sum(counted) == 30


async def test_job_that_is_retried_during_a_sweep_stays(store, make_job):
    running = await taken(store, await added(store, make_job()))
    failed = await step(store, running, Failed(at=2001, worker="w", error="e"))

    _, again = await asyncio.gather(
        store.forget(9e9, 9e9), step(store, failed, Retried(at=2002)), return_exceptions=True
    )

    if isinstance(again, Job):  # it was there before the sweep came to it, or it was gone: never something between
        assert await store.settled(again.id) == again
        assert await store.request(again.id) == b"{}"
    else:
        assert await store.settled(failed.id) is None


async def test_forget_spares_jobs_whose_webhook_is_owed(store, make_job):
    job = await completed(store, await added(store, make_job(webhook=HOOK)))
    [delivery] = await store.deliveries(3000, 9)

    assert await store.forget(9e9, 9e9) == 0
    await store.settle(delivery)
    assert await store.forget(9e9, 9e9) == 1

    assert await store.settled(job.id) is None


async def test_id_of_a_forgotten_job_can_be_used_again(store, make_job):
    job = await completed(store, await added(store, make_job(), b"old"), output=b"old")
    await store.append(job.id, 0, [b"old"])
    await store.forget(9e9, 9e9)

    await added(store, make_job(id=job.id), b"new")

    assert await store.request(job.id) == b"new"
    assert await store.output(job.id) is None
    assert store.chunks(job.id, 0) == []


async def test_retried_job_is_not_forgotten(store, make_job):
    running = await taken(store, await added(store, make_job()))
    failed = await step(store, running, Failed(at=2001, worker="w", error="e"))
    again = await step(store, failed, Retried(at=2002))

    assert await store.forget(9e9, 9e9) == 0
    assert await store.settled(again.id) == again


async def test_ten_thousand_jobs(store, make_job):
    jobs = [make_job(endpoint=f"ep{number % 3}") for number in range(10_000)]
    await asyncio.gather(*(store.add(job, b"{}") for job in jobs))
    running = [apply(job, Taken(at=20_000.0, worker=f"w{number % 50}")) for number, job in enumerate(jobs)]

    won = await asyncio.gather(*(store.swap(old, new) for old, new in zip(jobs, running, strict=True)))

    assert all(won)
    assert sum(store.counts(f"ep{number}").in_progress for number in range(3)) == 10_000
    assert [store.head(f"ep{number}", 1) for number in range(3)] == [[], [], []]
    assert len(store.leased("w7")) == 200
    assert len(store.overdue(30_000.0)) == 10_000
