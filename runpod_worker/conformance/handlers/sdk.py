"""The conformance handler on the reference SDK. Its kind is $CONFORMANCE_KIND; each job's input says what it does."""

import asyncio
import os
import sys
import time

import runpod


def begin(job: dict) -> dict:
    """Report progress, or end the process."""
    job_input: dict = job["input"]
    for value in job_input.get("progress", []):
        runpod.serverless.progress_update(job, value)
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
concurrency = int(os.environ.get("CONFORMANCE_CONCURRENCY", "1"))
config = {"handler": globals()[kind], "return_aggregate_stream": os.environ.get("CONFORMANCE_AGGREGATE") == "1"}
if concurrency > 1:
    config["concurrency_modifier"] = lambda current: concurrency

if __name__ == "__main__":
    runpod.serverless.start(config)
