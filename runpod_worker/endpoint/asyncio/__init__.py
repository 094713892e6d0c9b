"""The asyncio client under the module path of RunPod's SDK.

asyncio_runner  its `Endpoint` and `Job`
"""

from .asyncio_runner import Endpoint, Job

__all__ = ["Endpoint", "Job"]
