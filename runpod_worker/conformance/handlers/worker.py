"""The conformance handler on runpod_worker. Its kind is $CONFORMANCE_KIND; each job's input says what to do."""

import asyncio
import os
import sys
import time

from runpod_worker import Job, Worker

worker = Worker()
options = {"concurrency": int(os.environ.get("CONFORMANCE_CONCURRENCY", "1"))}


def begin(job: Job) -> dict:
    """Tell the progress, or end the process."""
    asked: dict = job["input"]
    for value in asked.get("progress", []):
        job.progress(value)
    if "exit" in asked:
        os._exit(asked["exit"])
    if "leave" in asked:
        sys.exit(asked["leave"])
    return asked


def end(asked: dict) -> object:
    """What the handler returns; or it raises."""
    if "raise" in asked:
        raise ValueError(asked["raise"])
    if "odd" in asked:
        return {"object": object(), "nan": {"value": float("nan")}}[asked["odd"]]
    return asked.get("return", {"echo": asked})


def function(job):
    asked = begin(job)
    time.sleep(asked.get("sleep", 0))
    return end(asked)


async def coroutine(job):
    asked = begin(job)
    await asyncio.sleep(asked.get("sleep", 0))
    return end(asked)


def generator(job):
    asked = begin(job)
    for value in asked.get("yield", []):
        yield value
        time.sleep(asked.get("sleep", 0))
    if "yield" not in asked or "raise" in asked:
        yield end(asked)


async def async_generator(job):
    asked = begin(job)
    for value in asked.get("yield", []):
        yield value
        await asyncio.sleep(asked.get("sleep", 0))
    if "yield" not in asked or "raise" in asked:
        yield end(asked)


kind = os.environ.get("CONFORMANCE_KIND", "function")
worker.handler(**options, aggregate=os.environ.get("CONFORMANCE_AGGREGATE") == "1")(globals()[kind])

if __name__ == "__main__":
    worker.start()
