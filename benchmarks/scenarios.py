"""What is measured. Each scenario runs one contender once and returns its figures by name."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.contenders import Contender, running
from benchmarks.fake_service import FakeService

Figures = dict[str, float]
PATIENCE_S = 40.0


def p50(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


@dataclass(frozen=True)
class Scenario:
    """`target` maps a figure to what we want of it: ('>=' or '<=', number)."""

    name: str
    run: Callable[[Contender], Awaitable[Figures]]
    target: dict[str, tuple[str, float]]
    reference: bool = True
    floor: str | None = None


async def with_service(use: Callable[[FakeService], Awaitable[Figures]], **options: object) -> Figures:
    service = FakeService(**options)  # type: ignore[arg-type]
    await service.start()
    try:
        return await use(service)
    finally:
        await service.close()


async def finished(service: FakeService, within: float = PATIENCE_S) -> None:
    """Wait for the expected results, or for as long as a figure needs."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.finished.wait(), within)


def spans(service: FakeService) -> list[tuple[float, float]]:
    """When each handler ran, by its own clock, in order of start."""
    outputs = (json.loads(body).get("output") for body in service.seen.bodies.values())
    return sorted((one["s"], one["e"]) for one in outputs if isinstance(one, dict) and "s" in one)


def busy(service: FakeService, slots: int) -> float:
    """Per cent of the slots' time spent in handlers, from the first start to the last end."""
    ran = spans(service)
    if len(ran) < 2:
        return float("nan")
    span = max(end for _, end in ran) - ran[0][0]
    return 100 * sum(end - start for start, end in ran) / (span * slots)


def gaps_ms(service: FakeService) -> list[float]:
    ran = spans(service)
    return [1000 * (later[0] - earlier[1]) for earlier, later in itertools.pairwise(ran)]


def backlog(
    handler: str, count: int, concurrency: int = 1, seconds: float = 6.0, **options: object
) -> Callable[[Contender], Awaitable[Figures]]:
    """A queue that is never empty: jobs a second, and the pause of the device between two jobs."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            few = contender.name == "runpod"
            total, most_s = (200, 10.0) if few else (count, seconds)
            service.reset(10**9)
            for n in range(total):
                service.add(f"j{n}", {})
            async with running(contender, service, handler, concurrency) as worker:
                begin = time.monotonic()
                warm = 0.0 if few else 1.0
                await asyncio.sleep(warm)
                before, at, cpu = len(service.seen.done), time.monotonic(), worker.cpu_s()
                while len(service.seen.done) < total and time.monotonic() - begin < most_s:
                    await asyncio.sleep(0.02)
                jobs = len(service.seen.done) - before
                rate, cost = jobs / (time.monotonic() - at), 1e6 * (worker.cpu_s() - cpu) / jobs
            return {"jobs/s": rate, "CPU us/job": cost, "gap p50 ms": p50(gaps_ms(service))}

        return await with_service(use, **options)

    return run


def busy_device(
    handler: str, seconds: float, count: int, concurrency: int = 1, **options: object
) -> Callable[[Contender], Awaitable[Figures]]:
    """Jobs of known length from a full queue: how busy the device is, and how long a job is held."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            total = 8 if contender.name == "runpod" else count
            service.reset(total)
            for n in range(total):
                service.add(f"j{n}", {"s": seconds})
            async with running(contender, service, handler, concurrency):
                await finished(service)
            held = [1000 * (service.seen.done[job] - service.seen.taken[job]) for job in service.seen.done]
            return {"busy %": busy(service, concurrency), "taken->done p50 ms": p50(held)}

        return await with_service(use, **options)

    return run


async def one_long_among_short(contender: Contender) -> Figures:
    """One 3 s job among many of 0.1 s at concurrency 8: do the other slots stay busy?"""

    async def use(service: FakeService) -> Figures:
        short = 40 if contender.name == "runpod" else 203
        service.reset(short + 1)
        service.add("long", {"s": 3.0})
        for n in range(short):
            service.add(f"j{n}", {"s": 0.1})
        async with running(contender, service, "sleep_async", 8):
            await finished(service)
        ran = spans(service)
        window = (ran[0][0], ran[0][0] + 2.9)
        inside = sum(max(0.0, min(end, window[1]) - max(start, window[0])) for start, end in ran)
        return {"busy %": 100 * inside / (8 * (window[1] - window[0]))}

    return await with_service(use)


async def wake_up(contender: Contender) -> Figures:
    """An idle worker, one job at a time: enqueued until the handler is entered."""

    async def use(service: FakeService) -> Figures:
        rounds, pause = (8, 1.5) if contender.name == "runpod" else (200, 0.02)  # it sleeps for a second after a job
        enqueued: dict[str, float] = {}
        async with running(contender, service, "noop"):
            await asyncio.sleep(1.0)
            for n in range(rounds):
                service.reset(1)
                await asyncio.sleep(pause)
                enqueued[f"j{n}"] = time.monotonic()
                service.add(f"j{n}", {})
                await finished(service, 5)
                bodies = {job: json.loads(body)["output"]["s"] for job, body in service.seen.bodies.items()}
                enqueued.update({job: 1000 * (start - enqueued[job]) for job, start in bodies.items()})
        return {"enqueued->starts p50 ms": p50(list(enqueued.values()))}

    return await with_service(use)


def stream(**options: object) -> Callable[[Contender], Awaitable[Figures]]:
    """A generator of many chunks of 100 B."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            count = 20_000 if options.get("extensions") and contender.name == "ours" else 200
            rates, firsts = [], []
            async with running(contender, service, "chunks"):
                for n in range(3 if contender.name == "runpod" or options.get("delay") else 8):
                    service.reset(1)
                    service.add(f"j{n}", {"n": count})
                    await finished(service)
                    seen, job = service.seen, f"j{n}"
                    if job in seen.first_chunk:
                        rates.append(seen.chunks / (seen.last_chunk[job] - seen.taken[job]))
                        firsts.append(1000 * (seen.first_chunk[job] - seen.taken[job]))
            return {"chunks/s": p50(rates), "take->first chunk p50 ms": p50(firsts)}

        return await with_service(use, **options)

    return run


async def big_outputs(contender: Contender) -> Figures:
    """1 MB outputs."""
    figures = await backlog("big_output", 6000, seconds=6.0, keep_bodies=False)(contender)
    return {name: figures[name] for name in ("jobs/s", "CPU us/job")}


async def big_inputs(contender: Contender) -> Figures:
    """8 MB inputs."""

    async def use(service: FakeService) -> Figures:
        total = 8 if contender.name == "runpod" else 300
        filler = "f" * 8_000_000
        body = json.dumps({"id": "ID", "input": {"filler": filler}}).encode()
        service.reset(total)
        for n in range(total):
            service.add_raw(f"j{n:05}", body.replace(b'"ID"', f'"j{n:05}"'.encode(), 1))
        async with running(contender, service, "big_input") as worker:
            cpu = worker.cpu_s()
            await finished(service)
            cost = 1e6 * (worker.cpu_s() - cpu) / total
        done = sorted(service.seen.done.values())
        return {"jobs/s": (len(done) - 1) / (done[-1] - done[0]), "CPU us/job": cost}

    return await with_service(use)


async def progress(contender: Contender) -> Figures:
    """100 progress updates in one job: what they cost the handler, and in which order they arrive."""

    async def use(service: FakeService) -> Figures:
        cost, unordered, late = [], 0, 0
        async with running(contender, service, "progress"):
            for n in range(5):
                service.reset(1)
                service.add(f"j{n}", {})
                await finished(service)
                await asyncio.sleep(0.5)  # whatever still comes after the result is what we look for
                values = [value for _, value, _ in service.seen.progress]
                unordered += sum(later < earlier for earlier, later in itertools.pairwise(values))
                late += sum(after for _, _, after in service.seen.progress)
                cost += [1000 * (end - start) for start, end in spans(service)]
        return {"handler's time p50 ms": p50(cost), "out of order": unordered / 5, "after the result": late / 5}

    return await with_service(use)


def stop(handler: str) -> Callable[[Contender], Awaitable[Figures]]:
    """Stop a running job of 30 s: how long until the slot runs the next one."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            took = []
            async with running(contender, service, handler):
                for n in range(1 if contender.name == "runpod" else 11):
                    service.reset(1)
                    service.add(f"long{n}", {"s": 30.0})
                    await _taken(service, f"long{n}")
                    await asyncio.sleep(0.2)
                    service.add(f"next{n}", {"s": 0.0})
                    begin = time.monotonic()
                    service.stop(f"long{n}")
                    while f"next{n}" not in service.seen.done and time.monotonic() - begin < 20:
                        await asyncio.sleep(0.001)
                    took.append(1000 * (time.monotonic() - begin) if f"next{n}" in service.seen.done else float("inf"))
            return {"stop->slot runs the next p50 ms": p50(took)}

        return await with_service(use)

    return run


async def _taken(service: FakeService, job_id: str) -> None:
    while job_id not in service.seen.taken:
        await asyncio.sleep(0.002)


async def idle_exit(contender: Contender) -> Figures:
    """SIGTERM to an idle worker whose poll is held."""

    async def use(service: FakeService) -> Figures:
        async with running(contender, service, "noop") as worker:
            await asyncio.sleep(2.0)
            return {"SIGTERM->exit ms": 1000 * await worker.stop(within=30)}

    return await with_service(use)


async def start_up(contender: Contender) -> Figures:
    """Process start until the first job-take."""

    async def use(service: FakeService) -> Figures:
        service.reset(1)
        async with running(contender, service, "noop") as worker:
            assert service.seen.first_take is not None
            return {"start->first take ms": 1000 * (service.seen.first_take - worker.spawned)}

    return await with_service(use)
