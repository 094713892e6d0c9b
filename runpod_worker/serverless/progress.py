"""`progress_update(job, value)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runpod_worker.core.errors import OutputError
from runpod_worker.log import log
from runpod_worker.worker.executor.attempt import attempts_by_job_id
from runpod_worker.worker.handler.job import Job


def progress_update(job: Mapping[str, Any], progress: Any) -> None:
    """Tell callers how far the job is: any JSON value. Returns at once, from any thread; never raises for the value.

    `job` may be the job as the handler got it, or any mapping with its `id`.
    """
    try:
        if isinstance(job, Job):
            job.progress(progress)
        elif (attempt := attempts_by_job_id.get(str(job["id"]))) is not None:
            attempt.progress(progress)
        else:
            log.warning("progress.no_job", extra={"job": job["id"]})
    except OutputError as error:
        log.error("progress.not_json", extra={"job": job["id"], "error": str(error)})
