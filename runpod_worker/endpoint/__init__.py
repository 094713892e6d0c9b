"""The client under the module paths of RunPod's SDK, such as `runpod.endpoint.Job`.

runner   `RunPodClient` and the blocking classes
asyncio  the asyncio classes
"""

from runpod_worker.client.aio import AsyncioEndpoint, AsyncioJob
from runpod_worker.client.blocking import Endpoint, Job

from . import runner

__all__ = ["AsyncioEndpoint", "AsyncioJob", "Endpoint", "Job", "runner"]
