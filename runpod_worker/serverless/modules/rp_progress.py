"""Progress, where RunPod's SDK has it."""

from runpod_worker.serverless.progress import progress_update

__all__ = ["progress_update"]
