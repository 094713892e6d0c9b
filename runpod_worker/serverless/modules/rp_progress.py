"""Progress, at the path of RunPod's SDK."""

from runpod_worker.serverless.progress import progress_update

__all__ = ["progress_update"]
