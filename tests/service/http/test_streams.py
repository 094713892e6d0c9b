"""/stream: a draining poll (protocol A.6)."""

from __future__ import annotations

import asyncio

import pytest


async def test_each_chunk_is_given_once_and_the_final_status_comes_with_the_last(api, plain):
    job_id = await api.run()
    assert (await api.get(f"/stream/{job_id}?wait=1000")).json == {"status": "IN_QUEUE", "stream": []}
    await plain.take()

    await plain.chunk(job_id, "a")
    await plain.chunk(job_id, {"b": 1})
    assert (await api.get(f"/stream/{job_id}")).json["stream"] == [{"output": "a"}, {"output": {"b": 1}}]
    await plain.chunk(job_id, None)
    await plain.done(job_id, {"output": []}, stream=True)

    assert (await api.get(f"/stream/{job_id}")).json == {"status": "COMPLETED", "stream": [{"output": None}]}
    assert (await api.get(f"/stream/{job_id}")).json == {"status": "COMPLETED", "stream": []}
    assert "output" not in await api.status(job_id)


async def test_an_empty_stream_waits_for_a_chunk(api, plain):
    job_id = await api.run()
    await plain.take()
    reading = asyncio.create_task(api.get(f"/stream/{job_id}?wait=20000"))
    await api.get("/health")

    await plain.chunk(job_id, 1)

    assert (await reading).json == {"status": "IN_PROGRESS", "stream": [{"output": 1}]}


async def test_a_waiting_stream_ends_when_the_job_does(api, plain):
    job_id = await api.run()
    await plain.take()
    reading = asyncio.create_task(api.get(f"/stream/{job_id}?wait=20000"))
    await api.get("/health")

    await plain.done(job_id, {"error": "boom"}, stream=True)

    assert (await reading).json == {"error": "boom", "status": "FAILED", "stream": []}


async def test_an_aggregated_stream_keeps_its_output(api, plain):
    job_id = await api.run()
    await plain.take()
    await plain.chunk(job_id, 1)
    await plain.done(job_id, {"output": [1]}, stream=True)

    assert (await api.status(job_id))["output"] == [1]


async def test_two_readers_split_the_chunks(api, plain):
    job_id = await api.run()
    await plain.take()
    readers = [asyncio.create_task(api.get(f"/stream/{job_id}?wait=20000")) for _ in range(2)]
    await api.get("/health")

    seen = []
    for n in range(20):
        await plain.chunk(job_id, n)
    await plain.done(job_id, {"output": []}, stream=True)
    for reader in readers:
        seen += (await reader).json["stream"]
    seen += (await api.get(f"/stream/{job_id}")).json["stream"]

    assert sorted(chunk["output"] for chunk in seen) == list(range(20))


async def test_a_reply_of_limited_size_keeps_the_status_open_until_all_chunks_are_read(api, plain):
    job_id = await api.run()
    await plain.take()
    for _ in range(3):
        await plain.chunk(job_id, "x" * 9 * 2**20)
    await plain.done(job_id, {"output": []}, stream=True)

    replies = [(await api.get(f"/stream/{job_id}")).json for _ in range(3)]

    assert [reply["status"] for reply in replies] == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
    assert [len(reply["stream"]) for reply in replies] == [1, 1, 1]


async def test_a_lost_attempt_leaves_no_unread_chunks_and_the_next_follows(service, clock):
    from runpod_worker.service.http import wire
    from runpod_worker.service.queue.polls import TakeRequest
    from runpod_worker.service.queue.reports import Reporter

    job = await service.submit("ep", wire.parse_submission(b'{"input": 1}', service.settings))
    first, second = Reporter(endpoint="ep", worker="a", attempt=1), Reporter(endpoint="ep", worker="b", attempt=2)
    await service.takes.take(TakeRequest(endpoint="ep", worker="a"), 0)
    await service.reports.add_chunks(first, job.id, [b'"read"'], 0)
    assert len((await service.read_stream("ep", job.id, 0)).chunks) == 1
    await service.reports.add_chunks(first, job.id, [b'"unread"'], 1)

    clock.time += 41
    await service.sweep.once()
    await service.takes.take(TakeRequest(endpoint="ep", worker="b"), 0)
    await service.reports.add_chunks(second, job.id, [b'"again"', b'"more"'], 0)
    await service.reports.add_chunks(second, job.id, [b'"more"', b'"last"'], 1)

    assert (await service.read_stream("ep", job.id, 0)).chunks == [b'"again"', b'"more"', b'"last"']


@pytest.mark.parametrize("verb", ["/retry/"])
async def test_a_retried_job_streams_from_the_start(api, plain, verb):
    job_id = await api.run()
    await plain.take()
    await plain.chunk(job_id, "old")
    await plain.done(job_id, {"error": "x"}, stream=True)
    await api.post(verb + job_id)
    await plain.take()
    await plain.chunk(job_id, "new")

    assert (await api.get(f"/stream/{job_id}")).json["stream"] == [{"output": "new"}]
