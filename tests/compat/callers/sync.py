"""The reference SDK's client, as its documentation uses it. Prints its results as JSON."""

import json
import sys
import time

import runpod

runpod.api_key = "key"
runpod.endpoint_url_base, _, name = sys.argv[1].rpartition("/")
endpoint = runpod.Endpoint(name)
seen = {}

seen["run_sync"] = endpoint.run_sync({"input": {"return": "ünï"}}, timeout=60)
job = endpoint.run({"return": {"n": 1}})
seen["output"] = job.output(timeout=60)
seen["status"] = job.status()
seen["stream"] = list(endpoint.run({"yield": [1, "two", {"three": 3}]}).stream())
failed = endpoint.run({"raise": "broke"})
seen["failed"] = (failed.output(timeout=60), failed.status())

busy = endpoint.run({"wait": True})
while busy.status() != "IN_PROGRESS":
    time.sleep(0.05)
waiting = [endpoint.run({"return": n}) for n in range(2)]
seen["health"] = endpoint.health()["jobs"]["inQueue"]
seen["purge"] = endpoint.purge_queue()
seen["cancel"] = busy.cancel()["status"]
print(json.dumps(seen))
