"""The blocking client, at the path of RunPod's SDK."""

from runpod_worker.client.blocking import Endpoint, Job, RunPodClient

__all__ = ["Endpoint", "Job", "RunPodClient"]
