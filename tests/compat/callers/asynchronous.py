"""The reference SDK's asyncio client, as its documentation uses it. Prints its results as JSON."""

import asyncio
import json
import sys

import aiohttp
import runpod

runpod.api_key = "key"
runpod.endpoint_url_base, _, name = sys.argv[1].rpartition("/")
from runpod import AsyncioEndpoint  # noqa: E402 - reads the base URL


async def main():
    seen = {}
    async with aiohttp.ClientSession() as session:
        endpoint = AsyncioEndpoint(name, session)
        job = await endpoint.run({"return": {"n": 1}})
        seen["output"] = await job.output(timeout=60)
        seen["status"] = await job.status()
        streamed = await endpoint.run({"yield": [1, "two", {"three": 3}]})
        seen["stream"] = [chunk async for chunk in streamed.stream()]
        busy = await endpoint.run({"wait": True})
        while await busy.status() != "IN_PROGRESS":
            await asyncio.sleep(0.05)
        for n in range(2):
            await endpoint.run({"return": n})
        seen["health"] = (await endpoint.health())["jobs"]["inQueue"]
        seen["purge"] = await endpoint.purge_queue()
        seen["cancel"] = (await busy.cancel())["status"]
    print(json.dumps(seen))


asyncio.run(main())
