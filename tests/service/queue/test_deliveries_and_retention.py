"""What belongs to a job, over every journal: webhooks to send, chunks, and their end after the retention."""

import asyncio

import pytest

from runpod_worker.core.errors import JobNotFound
from runpod_worker.core.job import Job
from runpod_worker.core.lifecycle import (
    CancelRequested,
    Failed,
    Retried,
    Succeeded,
    Taken,
    apply,
)
from runpod_worker.service.journal.port import Delivery

HOOK = "https://receiver.example/hook"


async def taken(store, job: Job, at: float = 2000.0, worker: str = "w") -> Job:
    return await store.step(job, Taken(at=at, worker=worker))


async def completed(store, job: Job, at: float = 2001.0, output: bytes | None = b"1") -> Job:
    await taken(store, job, at - 1)
    return await store.step(job, Succeeded(at=at, worker="w"), output=output)


async def test_final_job_and_its_delivery_appear_together(store, make_job):
    running = await taken(store, await store.add(make_job(webhook=HOOK)))
    assert store.queue.jobs.deliveries.next_at() is None

    final = await store.step(running, Succeeded(at=2005.0, worker="w"), output=b"1")

    assert store.queue.jobs.deliveries.next_at() == 2005.0
    assert store.due_deliveries(2004.9, 9) == []
    assert store.due_deliveries(2005.0, 9) == [Delivery(job_id=final.id, url=HOOK, tries=0, next_at=2005.0)]


async def test_no_webhook_no_delivery(store, make_job):
    await completed(store, await store.add(make_job()))

    assert store.queue.jobs.deliveries.next_at() is None


async def test_delivery_is_due_once_until_its_hold_ends(store, make_job):
    await completed(store, await store.add(make_job(webhook=HOOK)), at=2001.0)

    [first] = store.due_deliveries(3000, 9, hold_s=60)

    assert store.due_deliveries(3059, 9) == []
    assert store.queue.jobs.deliveries.next_at() == 3060
    assert store.due_deliveries(3060, 9) == [first]


async def test_deliveries_come_oldest_first_and_at_most_as_many_as_asked(store, make_job):
    for at in 2003.0, 2001.0, 2002.0:
        await completed(store, await store.add(make_job(webhook=HOOK)), at=at)

    assert [row.next_at for row in store.due_deliveries(9000, 2)] == [2001.0, 2002.0]
    assert [row.next_at for row in store.due_deliveries(9000, 2)] == [2003.0]


async def test_postponed_delivery_comes_again_later(store, make_job):
    await completed(store, await store.add(make_job(webhook=HOOK)))
    [delivery] = store.due_deliveries(3000, 9)

    await store.queue.postpone(delivery, 3005.5)

    assert store.queue.jobs.deliveries.next_at() == 3005.5
    assert store.due_deliveries(3005, 9) == []
    [again] = store.due_deliveries(3005.5, 9)
    assert (again.tries, again.next_at) == (1, 3005.5)


async def test_settled_delivery_is_gone(store, make_job):
    await completed(store, await store.add(make_job(webhook=HOOK)))
    [delivery] = store.due_deliveries(3000, 9)

    await store.queue.settle(delivery)
    await store.queue.settle(delivery)

    assert store.queue.jobs.deliveries.next_at() is None


async def test_late_answer_to_an_old_delivery_leaves_the_new_one(store, make_job):
    running = await taken(store, await store.add(make_job(webhook=HOOK)))
    failed = await store.step(running, Failed(at=2001.0, worker="w", error="e"))
    [old] = store.due_deliveries(2001, 9)
    again = await store.step(failed, Retried(at=2002.0))
    assert store.queue.jobs.deliveries.next_at() is None
    await completed(store, again, at=2010.0)

    await store.queue.settle(old)
    await store.queue.postpone(old, 99.0)

    assert [row.next_at for row in store.due_deliveries(2010, 9)] == [2010.0]


async def test_chunks_come_in_order_from_any_index(store, make_job):
    job = await taken(store, await store.add(make_job()))

    assert await store.add_chunks(job.id, 0, [b"a", b"b"]) == 2
    assert await store.add_chunks(job.id, 2, [b"c"]) == 3

    assert store.chunks(job.id) == [b"a", b"b", b"c"]
    assert store.chunks(job.id, 2) == [b"c"]
    assert store.chunks(job.id, 3) == []
    assert store.chunks(job.id, 99) == []


async def test_chunks_sent_again_are_dropped(store, make_job):
    job = await taken(store, await store.add(make_job()))
    await store.add_chunks(job.id, 0, [b"a", b"b"])

    assert await store.add_chunks(job.id, 0, [b"A", b"B"]) == 2
    assert await store.add_chunks(job.id, 1, [b"B", b"c"]) == 3

    assert store.chunks(job.id) == [b"a", b"b", b"c"]


async def test_chunks_of_an_unknown_job_are_refused(store):
    with pytest.raises(JobNotFound):
        await store.add_chunks("nobody", 0, [b"a"])


async def test_chunks_posted_at_once_keep_their_order(store, make_job):
    job = await taken(store, await store.add(make_job()))

    await asyncio.gather(*(store.add_chunks(job.id, number, [b"%d" % number]) for number in range(50)))

    assert store.chunks(job.id) == [b"%d" % number for number in range(50)]


async def test_chunks_stay_with_the_final_job_and_go_when_it_is_retried(store, make_job):
    job = await taken(store, await store.add(make_job()))
    await store.add_chunks(job.id, 0, [b"a"])
    failed = await store.step(job, Failed(at=2001, worker="w", error="e"))
    assert store.chunks(job.id) == [b"a"]

    again = await store.step(failed, Retried(at=2002))

    assert store.chunks(job.id) == []
    await taken(store, again)
    assert await store.add_chunks(job.id, 0, [b"new"]) == 1
    assert store.chunks(job.id) == [b"new"]


async def test_forget_deletes_what_ended_before_its_time(store, make_job):
    old = await completed(store, await store.add(make_job()), at=2001.0)
    new = await completed(store, await store.add(make_job()), at=3001.0)
    sync = await completed(store, await store.add(make_job(sync=True)), at=2500.0)
    running = await taken(store, await store.add(make_job()))
    await store.add_chunks(running.id, 0, [b"a"])

    assert await store.forget(3000.0, 2500.0) == 1
    assert await store.committed(old.id) is None
    assert await store.queue.jobs.body("requests", old.id) is None
    assert await store.queue.jobs.body("outputs", old.id) is None
    assert await store.committed(sync.id) == sync

    assert await store.forget(3001.0, 2600.0) == 1
    assert await store.committed(sync.id) is None
    assert await store.committed(new.id) == new
    assert await store.committed(running.id) == running
    assert store.chunks(running.id) == [b"a"]


async def test_two_sweeps_at_once_count_each_job_once(store, make_job):
    jobs = [apply(make_job(), CancelRequested(at=2000)) for _ in range(30)]
    await asyncio.gather(*(store.add(job, b"") for job in jobs))

    counted = await asyncio.gather(store.forget(9e9, 9e9), store.forget(9e9, 9e9))

    assert sum(counted) == 30


async def test_job_that_is_retried_during_a_sweep_stays(store, make_job):
    running = await taken(store, await store.add(make_job()))
    failed = await store.step(running, Failed(at=2001, worker="w", error="e"))

    again: Job | BaseException
    _, again = await asyncio.gather(
        store.forget(9e9, 9e9), store.step(failed, Retried(at=2002)), return_exceptions=True
    )

    if isinstance(again, Job):  # it was there before the sweep came to it, or it was gone: never something between
        assert await store.committed(again.id) == again
        assert await store.queue.jobs.body("requests", again.id) == b"{}"
    else:
        assert await store.committed(failed.id) is None


async def test_forget_keeps_jobs_whose_webhook_is_due(store, make_job):
    job = await completed(store, await store.add(make_job(webhook=HOOK)))
    [delivery] = store.due_deliveries(3000, 9)

    assert await store.forget(9e9, 9e9) == 0
    await store.queue.settle(delivery)
    assert await store.forget(9e9, 9e9) == 1

    assert await store.committed(job.id) is None


async def test_id_of_a_forgotten_job_can_be_used_again(store, make_job):
    job = await completed(store, await store.add(make_job(), b"old"), output=b"old")
    await store.add_chunks(job.id, 0, [b"old"])
    await store.forget(9e9, 9e9)

    await store.add(make_job(id=job.id), b"new")

    assert await store.queue.jobs.body("requests", job.id) == b"new"
    assert await store.queue.jobs.body("outputs", job.id) is None
    assert store.chunks(job.id) == []


async def test_retried_job_is_not_forgotten(store, make_job):
    running = await taken(store, await store.add(make_job()))
    failed = await store.step(running, Failed(at=2001, worker="w", error="e"))
    again = await store.step(failed, Retried(at=2002))

    assert await store.forget(9e9, 9e9) == 0
    assert await store.committed(again.id) == again
