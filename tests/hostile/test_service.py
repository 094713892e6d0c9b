"""The whole corpus against a real service: no 5xx, no hang, no lost neighbour, no exit, no growth."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from runpod_worker.service.files import FolderFiles
from runpod_worker.service.http.requests import Route
from runpod_worker.service.journal.null import NullJournal
from runpod_worker.service.server import Server, Stores
from runpod_worker.service.settings import ServiceSettings

from .conftest import ServiceProcess, request
from .corpus import ENDPOINT, FRAMING, JOB, OPENAI_ENDPOINT, SEGMENTS, WORKER, Case, requests

CONCURRENT = 32
MAX_GROWTH_MIB = 32.0
"""Allowed growth of the second pass over the first: caches that fill up, and noise of malloc."""

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "0"))
"""For how long random combinations are sent. `make hostile` sets it, and then the whole corpus is sent too."""

SAMPLE, SAMPLE_S = 4_000, 3.0
"""Cases of the corpus, and seconds of random combinations, in the ordinary suite."""


def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Route]:
    stores = Stores(journal=NullJournal(), files=FolderFiles(tmp_path_factory.mktemp("files")))
    return Server(ServiceSettings(), stores)._routes()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    cases = list(requests(routes(tmp_path_factory)))
    return cases if SECONDS else random.Random(0).sample(cases, SAMPLE)


def test_every_route_has_valid_segments_in_the_corpus(tmp_path_factory: pytest.TempPathFactory) -> None:
    table = routes(tmp_path_factory)

    assert set(SEGMENTS) == set(table)
    assert all(route.fits(SEGMENTS[verb]) for verb, route in table.items())


async def send_all(service: ServiceProcess, cases: Iterator[Case]) -> tuple[Counter[str], list[str]]:
    """Send the cases over several connections at a time; return the replies' statuses and what went wrong."""
    statuses: Counter[str] = Counter()
    problems: list[str] = []

    async def send_some() -> None:
        job_id = await service.submit_and_take(ENDPOINT, WORKER)
        for number, case in enumerate(cases, 1):
            if number % 200 == 0:
                await service.check_neighbour()
                job_id = await service.submit_and_take(ENDPOINT, WORKER)
            data = request(case.method, case.path.replace(JOB, job_id), case.headers, case.body)
            try:
                status = await service.send(data)
            except TimeoutError:
                status = 599
            statuses[str(status)] += 1
            if status is not None and status >= 500:
                problems.append(f"{status} {case.name}: {case.method} {data[:300]!r}")

    answering = asyncio.create_task(service.answer_jobs(OPENAI_ENDPOINT))
    await asyncio.gather(*(send_some() for _ in range(CONCURRENT)))
    assert not answering.done(), "the worker that answers jobs has failed"
    answering.cancel()
    await asyncio.wait([answering])
    return statuses, problems


@pytest.mark.timeout(1800 if SECONDS else 120)
async def test_the_corpus_disturbs_nothing(service_process: ServiceProcess, cases: list[Case]) -> None:
    await service_process.start()
    await send_all(service_process, iter(cases))
    await service_process.call("POST", f"/v2/{ENDPOINT}/purge-queue")
    memory = service_process.memory_mib

    statuses, problems = await send_all(service_process, iter(cases))
    await service_process.call("POST", f"/v2/{ENDPOINT}/purge-queue")

    print(f"{len(cases)} cases: {dict(statuses)}; {memory:.0f} -> {service_process.memory_mib:.0f} MiB")
    assert problems == []
    assert await service_process.open_files() <= 40
    assert service_process.memory_mib - memory < MAX_GROWTH_MIB
    await service_process.check_neighbour()


async def test_bytes_that_are_no_request_get_a_refusal_or_nothing(service_process: ServiceProcess) -> None:
    await service_process.start()

    async def status(data: bytes) -> int | None:
        try:
            return await asyncio.wait_for(service_process.send(data), 1.5)
        except TimeoutError:  # the request is not complete; the service waits for the rest
            return None

    statuses = await asyncio.gather(*map(status, FRAMING))

    wrong = [(reply, data) for data, reply in zip(FRAMING, statuses, strict=True) if reply is not None and reply >= 500]
    assert wrong == []
    await service_process.check_neighbour()


@pytest.mark.timeout(SECONDS + 120)
async def test_random_combinations_disturb_nothing(service_process: ServiceProcess, cases: list[Case]) -> None:
    await service_process.start()
    seed = random.randrange(2**32)
    print("seed", seed)
    dice, until = random.Random(seed), time.monotonic() + (SECONDS or SAMPLE_S)

    def combinations() -> Iterator[Case]:
        while time.monotonic() < until:
            first, second, third = dice.choices(cases, k=3)
            body = bytearray(third.body[:100_000])
            for _ in range(dice.randrange(4) if body else 0):
                body[dice.randrange(len(body))] = dice.randrange(256)
            yield first._replace(headers={**first.headers, **second.headers}, body=bytes(body))

    _, problems = await send_all(service_process, combinations())

    assert problems == []
    await service_process.check_neighbour()
