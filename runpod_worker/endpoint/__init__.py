"""The client with the names of RunPod's SDK: `runpod.endpoint.Job`, `runpod.endpoint.runner.RunPodClient`."""

from runpod_worker.client.aio import AsyncioEndpoint, AsyncioJob
from runpod_worker.client.blocking import Endpoint, Job

from . import runner

__all__ = ["AsyncioEndpoint", "AsyncioJob", "Endpoint", "Job", "runner"]
