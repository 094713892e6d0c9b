"""`progress_update` of RunPod's SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runpod_worker.core.errors import OutputError
from runpod_worker.log import log
from runpod_worker.worker.executor.attempt import attempts_by_job_id
from runpod_worker.worker.handler.job import Job


def progress_update(job: Mapping[str, Any], progress: Any) -> None:
    """Set the progress of a job, any JSON value, from any thread. Does not wait, and does not raise for a bad value.

    `job` is the job that the handler got, or any mapping with its `id`.
    """
    try:
        if isinstance(job, Job):
            job.progress(progress)
        elif (attempt := attempts_by_job_id.get(str(job["id"]))) is not None:
            attempt.progress(progress)
        else:
            log.warning("progress.ignored", extra={"job": job["id"]})
    except OutputError as error:
        log.error("progress.rejected", extra={"job": job["id"], "error": str(error)})
