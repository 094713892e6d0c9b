"""A handler for the reference SDK, since version 1.2.6, that does what the input of a job asks for.

$KIND is the kind of the handler, $SLOTS the number of concurrent jobs. The input names files that show the test
where the handler is (`mark`), and the handler when to continue (`until`).
"""

import asyncio
import os
import time
from pathlib import Path

import runpod

KIND = os.environ.get("KIND", "function")
SLOTS = int(os.environ.get("SLOTS", "1"))


def begin(job):
    request = job["input"]
    for value in request.get("progress", []):
        runpod.serverless.progress_update(job, value)
    if "mark" in request:
        Path(request["mark"]).touch()
    if "exit" in request:
        os._exit(request["exit"])
    return request


def waiting(request):
    return "until" in request and not Path(request["until"]).exists()


def end(request):
    if "raise" in request:
        raise ValueError(request["raise"])
    if "odd" in request:
        return {"object": {1, 2}, "nan": {"value": float("nan")}}[request["odd"]]
    return request.get("return", {"echo": request})


def function(job):
    request = begin(job)
    while waiting(request):
        time.sleep(0.02)
    return end(request)


async def coroutine(job):
    request = begin(job)
    while waiting(request):
        await asyncio.sleep(0.02)
    return end(request)


def generator(job):
    request = begin(job)
    yield from request.get("yield", [])
    if "raise" in request:
        end(request)


async def async_generator(job):
    request = begin(job)
    for value in request.get("yield", []):
        yield value
    while waiting(request):
        await asyncio.sleep(0.02)
    if "raise" in request:
        end(request)


config = {
    "handler": globals()[KIND],
    "return_aggregate_stream": os.environ.get("AGGREGATE") == "1",
    "refresh_worker": os.environ.get("REFRESH") == "1",
}
if SLOTS > 1:
    config["concurrency_modifier"] = lambda current: SLOTS
runpod.serverless.start(config)
