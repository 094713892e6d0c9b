"""The URLs of reports, at the path of RunPod's SDK. The agent sends the reports: assigning these has no effect."""

from __future__ import annotations

from runpod_worker.config import worker_settings

__all__ = ["JOB_DONE_URL", "JOB_STREAM_URL"]

_settings = worker_settings()

JOB_DONE_URL = (_settings.done_url or "JOB_DONE_URL").replace("$RUNPOD_POD_ID", _settings.worker_id)
JOB_STREAM_URL = (_settings.stream_url or "JOB_STREAM_URL").replace("$RUNPOD_POD_ID", _settings.worker_id)
