"""The floor: the cost of the protocol itself. A worker without features: one aiohttp session, one process.

`python floor.py sequential|pipelined HANDLER CONCURRENCY`. sequential: take, run, report, one after the other.
pipelined: prefetch one job, and report in the background.
"""

import asyncio
import inspect
import json
import os
import sys

import aiohttp
import handlers
import uvloop


async def run(handler, job, session, done_url, stream_url):
    if inspect.isgeneratorfunction(handler):
        for chunk in handler(job):
            body = json.dumps({"output": chunk}).encode()
            async with session.post(stream_url.replace("$ID", job["id"]) + "&isStream=false", data=body):
                pass
        return [], done_url.replace("$ID", job["id"]) + "&isStream=true"
    value = handler(job)
    if inspect.isawaitable(value):
        value = await value
    return value, done_url.replace("$ID", job["id"]) + "&isStream=false"


async def post(session, url, value):
    async with session.post(url, data=json.dumps({"output": value}).encode()):
        pass


async def take(session, url):
    while True:
        async with session.get(url + "&job_in_progress=0") as reply:
            if reply.status == 200:
                return await reply.json()


async def sequential(handler, session, urls):
    while True:
        job = await take(session, urls[0])
        value, url = await run(handler, job, session, *urls[1:])
        await post(session, url, value)


async def pipelined(handler, session, urls):
    ahead, behind = asyncio.ensure_future(take(session, urls[0])), set()
    while True:
        job = await ahead
        ahead = asyncio.ensure_future(take(session, urls[0]))
        await asyncio.sleep(0)  # let the request leave before the handler blocks the loop
        value, url = await run(handler, job, session, *urls[1:])
        task = asyncio.ensure_future(post(session, url, value))
        behind.add(task)
        task.add_done_callback(behind.discard)


async def main(loop_kind, handler, concurrency):
    urls = [os.environ[f"RUNPOD_WEBHOOK_{name}"] for name in ("GET_JOB", "POST_OUTPUT", "POST_STREAM")]
    loop = {"sequential": sequential, "pipelined": pipelined}[loop_kind]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:
        await asyncio.gather(*(loop(handler, session, urls) for _ in range(concurrency)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], getattr(handlers, sys.argv[2]), int(sys.argv[3])))
