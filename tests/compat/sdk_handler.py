"""What a job's input says, done by a handler for the reference SDK of any version since 1.2.6.

$KIND is the kind of the handler, $SLOTS how many jobs it runs at once. Files named by the input tell the test where it
is (`mark`) and the handler when to go on (`until`).
"""

import asyncio
import os
import time
from pathlib import Path

import runpod

KIND = os.environ.get("KIND", "function")
SLOTS = int(os.environ.get("SLOTS", "1"))


def begin(job):
    asked = job["input"]
    for value in asked.get("progress", []):
        runpod.serverless.progress_update(job, value)
    if "mark" in asked:
        Path(asked["mark"]).touch()
    if "exit" in asked:
        os._exit(asked["exit"])
    return asked


def waiting(asked):
    return "until" in asked and not Path(asked["until"]).exists()


def end(asked):
    if "raise" in asked:
        raise ValueError(asked["raise"])
    if "odd" in asked:
        return {"object": {1, 2}, "nan": {"value": float("nan")}}[asked["odd"]]
    return asked.get("return", {"echo": asked})


def function(job):
    asked = begin(job)
    while waiting(asked):
        time.sleep(0.02)
    return end(asked)


async def coroutine(job):
    asked = begin(job)
    while waiting(asked):
        await asyncio.sleep(0.02)
    return end(asked)


def generator(job):
    asked = begin(job)
    yield from asked.get("yield", [])
    if "raise" in asked:
        end(asked)


async def async_generator(job):
    asked = begin(job)
    for value in asked.get("yield", []):
        yield value
    while waiting(asked):
        await asyncio.sleep(0.02)
    if "raise" in asked:
        end(asked)


config = {
    "handler": globals()[KIND],
    "return_aggregate_stream": os.environ.get("AGGREGATE") == "1",
    "refresh_worker": os.environ.get("REFRESH") == "1",
}
if SLOTS > 1:
    config["concurrency_modifier"] = lambda current: SLOTS
runpod.serverless.start(config)
