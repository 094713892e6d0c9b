"""The asyncio client, where RunPod's SDK has it."""

from runpod_worker.client.aio import AsyncioEndpoint as Endpoint
from runpod_worker.client.aio import AsyncioJob as Job

__all__ = ["Endpoint", "Job"]
