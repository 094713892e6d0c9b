"""The blocking client, where RunPod's SDK has it."""

from runpod_worker.client.blocking import Endpoint, Job, RunPodClient

__all__ = ["Endpoint", "Job", "RunPodClient"]
