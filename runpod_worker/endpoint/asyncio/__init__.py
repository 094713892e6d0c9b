"""The asyncio client, where RunPod's SDK has it."""

from .asyncio_runner import Endpoint, Job

__all__ = ["Endpoint", "Job"]
