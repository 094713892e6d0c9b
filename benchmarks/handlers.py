"""The handlers under test, the same for every worker. `python handlers.py ours|runpod HANDLER CONCURRENCY`."""

import asyncio
import sys
import time

FILLER = "x" * 1_000_000
CHUNK = "c" * 98


def noop(job):
    start = time.monotonic()
    return {"s": start, "e": time.monotonic()}


async def noop_async(job):
    start = time.monotonic()
    return {"s": start, "e": time.monotonic()}


def sleep(job):
    start = time.monotonic()
    time.sleep(job["input"]["s"])
    return {"s": start, "e": time.monotonic()}


async def sleep_async(job):
    start = time.monotonic()
    await asyncio.sleep(job["input"]["s"])
    return {"s": start, "e": time.monotonic()}


def chunks(job):
    for _ in range(job["input"]["n"]):
        yield CHUNK


def big_output(job):
    return FILLER


def big_input(job):
    return len(job["input"]["filler"])


def progress(job):
    start = time.monotonic()
    for n in range(100):
        update(job, n)
    return {"s": start, "e": time.monotonic()}


def update(job, value):
    job.progress(value)


def serve_ours(handler, concurrency):
    from runpod_worker import Worker

    worker = Worker()
    worker.handler(concurrency=concurrency)(handler)
    worker.start()


def serve_runpod(handler, concurrency):
    import runpod

    global update
    update = runpod.serverless.progress_update
    runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: concurrency})


if __name__ == "__main__":
    sdk, name, concurrency = sys.argv[1:4]
    sys.argv[1:] = []
    {"ours": serve_ours, "runpod": serve_runpod}[sdk](globals()[name], int(concurrency))
