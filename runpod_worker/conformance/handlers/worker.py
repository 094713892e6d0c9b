"""The conformance handler on runpod_worker. Its kind is $CONFORMANCE_KIND; each job's input says what it does."""

import asyncio
import os
import sys
import time

from runpod_worker import Job, Worker

worker = Worker()
options = {"concurrency": int(os.environ.get("CONFORMANCE_CONCURRENCY", "1"))}


def begin(job: Job) -> dict:
    """Report progress, or end the process."""
    job_input: dict = job["input"]
    for value in job_input.get("progress", []):
        job.progress(value)
    if "exit" in job_input:
        os._exit(job_input["exit"])
    if "leave" in job_input:
        sys.exit(job_input["leave"])
    return job_input


def end(job_input: dict) -> object:
    """Return the handler's result, or raise."""
    if "raise" in job_input:
        raise ValueError(job_input["raise"])
    if "odd" in job_input:
        return {"object": object(), "nan": {"value": float("nan")}}[job_input["odd"]]
    return job_input.get("return", {"echo": job_input})


def function(job):
    job_input = begin(job)
    time.sleep(job_input.get("sleep", 0))
    return end(job_input)


async def coroutine(job):
    job_input = begin(job)
    await asyncio.sleep(job_input.get("sleep", 0))
    return end(job_input)


def generator(job):
    job_input = begin(job)
    for value in job_input.get("yield", []):
        yield value
        time.sleep(job_input.get("sleep", 0))
    if "yield" not in job_input or "raise" in job_input:
        yield end(job_input)


async def async_generator(job):
    job_input = begin(job)
    for value in job_input.get("yield", []):
        yield value
        await asyncio.sleep(job_input.get("sleep", 0))
    if "yield" not in job_input or "raise" in job_input:
        yield end(job_input)


kind = os.environ.get("CONFORMANCE_KIND", "function")
worker.handler(**options, aggregate=os.environ.get("CONFORMANCE_AGGREGATE") == "1")(globals()[kind])

if __name__ == "__main__":
    worker.start()
