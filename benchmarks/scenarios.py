"""The scenarios. Each runs one contender once and returns its figures by name."""

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
TIMEOUT_S = 40.0


def p50(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


@dataclass(frozen=True)
class Scenario:
    """A row of the table. `target` maps a figure to its target: ('>=' or '<=', number)."""

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


async def until_finished(service: FakeService, timeout_s: float = TIMEOUT_S) -> None:
    """Wait for the expected results, at most `timeout_s`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.finished.wait(), timeout_s)


def spans(service: FakeService) -> list[tuple[float, float]]:
    """Start and end of each handler by its own clock, in order of start."""
    outputs = (json.loads(body).get("output") for body in service.seen.bodies.values())
    return sorted((output["s"], output["e"]) for output in outputs if isinstance(output, dict) and "s" in output)


def busy_percent(service: FakeService, slots: int) -> float:
    """The share of the slots' time spent in handlers, from the first start to the last end."""
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
    """A queue that is never empty: jobs per second, and the pause of the device between two jobs."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            few = contender.is_reference
            total, max_s = (200, 10.0) if few else (count, seconds)
            service.reset(10**9)
            for n in range(total):
                service.add(f"j{n}", {})
            async with running(contender, service, handler, concurrency) as worker:
                begin = time.monotonic()
                warm = 0.0 if few else min(1.0, seconds / 2)
                await asyncio.sleep(warm)
                before, at, cpu = len(service.seen.done), time.monotonic(), worker.cpu_s()
                while len(service.seen.done) < total and time.monotonic() - begin < max_s:
                    await asyncio.sleep(0.02)
                jobs = len(service.seen.done) - before
                rate, cost = jobs / (time.monotonic() - at), 1e6 * (worker.cpu_s() - cpu) / max(jobs, 1)
            return {"jobs/s": rate, "CPU us/job": cost, "gap p50 ms": p50(gaps_ms(service))}

        return await with_service(use, **options)

    return run


def busy_device(
    handler: str, seconds: float, count: int, concurrency: int = 1, **options: object
) -> Callable[[Contender], Awaitable[Figures]]:
    """Jobs of known duration from a full queue: how busy the device is, and the time from take to result."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            total = 8 if contender.is_reference else count
            service.reset(total)
            for n in range(total):
                service.add(f"j{n}", {"s": seconds})
            async with running(contender, service, handler, concurrency):
                await until_finished(service)
            held = [1000 * (service.seen.done[job] - service.seen.taken[job]) for job in service.seen.done]
            return {"busy %": busy_percent(service, concurrency), "taken->done p50 ms": p50(held)}

        return await with_service(use, **options)

    return run


async def one_long_among_short(contender: Contender) -> Figures:
    """One 3 s job among many of 0.1 s at concurrency 8: do the other slots stay busy?"""

    async def use(service: FakeService) -> Figures:
        short = 40 if contender.is_reference else 203
        service.reset(short + 1)
        service.add("long", {"s": 3.0})
        for n in range(short):
            service.add(f"j{n}", {"s": 0.1})
        async with running(contender, service, "sleep_async", 8):
            await until_finished(service)
        ran = spans(service)
        window = (ran[0][0], ran[0][0] + 2.9)
        inside = sum(max(0.0, min(end, window[1]) - max(start, window[0])) for start, end in ran)
        return {"busy %": 100 * inside / (8 * (window[1] - window[0]))}

    return await with_service(use)


def wake_up(jobs: int = 200) -> Callable[[Contender], Awaitable[Figures]]:
    """An idle worker, one job at a time: the time until the handler starts."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            count, pause = (8, 1.5) if contender.is_reference else (jobs, 0.02)  # the SDK sleeps 1 s after a job
            waits: list[float] = []
            async with running(contender, service, "noop"):
                await asyncio.sleep(1.0)
                for n in range(count):
                    service.reset(1)
                    await asyncio.sleep(pause)
                    enqueued_at = time.monotonic()
                    service.add(f"j{n}", {})
                    await until_finished(service, 5)
                    starts = [json.loads(body)["output"]["s"] for body in service.seen.bodies.values()]
                    waits += [1000 * (start - enqueued_at) for start in starts]
            return {"enqueued->starts p50 ms": p50(waits)}

        return await with_service(use)

    return run


def stream(**options: object) -> Callable[[Contender], Awaitable[Figures]]:
    """A generator of many chunks of 100 B."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            is_batched = options.get("extensions") and not contender.is_reference and not contender.is_floor
            count = 20_000 if is_batched else 200
            rates, firsts = [], []
            async with running(contender, service, "chunks"):
                for n in range(3 if contender.is_reference or options.get("delay") else 8):
                    service.reset(1)
                    service.add(f"j{n}", {"n": count})
                    await until_finished(service)
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
        total = 8 if contender.is_reference else 300
        filler = "f" * 8_000_000
        body = json.dumps({"id": "ID", "input": {"filler": filler}}).encode()
        service.reset(total)
        for n in range(total):
            service.add_raw(f"j{n:05}", body.replace(b'"ID"', f'"j{n:05}"'.encode(), 1))
        async with running(contender, service, "big_input") as worker:
            cpu = worker.cpu_s()
            await until_finished(service)
            cost = 1e6 * (worker.cpu_s() - cpu) / total
        done = sorted(service.seen.done.values())
        return {"jobs/s": (len(done) - 1) / (done[-1] - done[0]), "CPU us/job": cost}

    return await with_service(use)


async def progress(contender: Contender) -> Figures:
    """100 progress updates in one job: their cost for the handler, and their order of arrival."""

    async def use(service: FakeService) -> Figures:
        cost, unordered, late = [], 0, 0
        async with running(contender, service, "progress"):
            for n in range(5):
                service.reset(1)
                service.add(f"j{n}", {})
                await until_finished(service)
                await asyncio.sleep(0.5)  # counts progress that arrives after the result
                values = [value for _, value, _ in service.seen.progress]
                unordered += sum(later < earlier for earlier, later in itertools.pairwise(values))
                late += sum(after for _, _, after in service.seen.progress)
                cost += [1000 * (end - start) for start, end in spans(service)]
        return {"handler's time p50 ms": p50(cost), "out of order": unordered / 5, "after the result": late / 5}

    return await with_service(use)


def stop(handler: str) -> Callable[[Contender], Awaitable[Figures]]:
    """Stop a running job of 30 s: the time until the slot has run the next job."""

    async def run(contender: Contender) -> Figures:
        async def use(service: FakeService) -> Figures:
            waits = []
            async with running(contender, service, handler):
                for n in range(1 if contender.is_reference else 11):
                    service.reset(1)
                    service.add(f"long{n}", {"s": 30.0})
                    await _until_taken(service, f"long{n}")
                    await asyncio.sleep(0.2)
                    service.add(f"next{n}", {"s": 0.0})
                    begin = time.monotonic()
                    service.stop(f"long{n}")
                    while f"next{n}" not in service.seen.done and time.monotonic() - begin < 20:
                        await asyncio.sleep(0.001)
                    is_done = f"next{n}" in service.seen.done
                    waits.append(1000 * (time.monotonic() - begin) if is_done else float("inf"))
            return {"stop->slot runs the next p50 ms": p50(waits)}

        return await with_service(use)

    return run


async def _until_taken(service: FakeService, job_id: str) -> None:
    while job_id not in service.seen.taken:
        await asyncio.sleep(0.002)


async def idle_exit(contender: Contender) -> Figures:
    """SIGTERM to an idle worker with an open take."""

    async def use(service: FakeService) -> Figures:
        async with running(contender, service, "noop") as worker:
            await asyncio.sleep(2.0)
            return {"SIGTERM->exit ms": 1000 * await worker.stop(timeout_s=30)}

    return await with_service(use)


async def start_up(contender: Contender) -> Figures:
    """The time from process start to the first job-take."""

    async def use(service: FakeService) -> Figures:
        service.reset(1)
        async with running(contender, service, "noop") as worker:
            first_take = service.seen.first_take or float("nan")
            return {"start->first take ms": 1000 * (first_take - worker.started_at)}

    return await with_service(use)
