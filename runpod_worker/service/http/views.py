"""What callers and webhook receivers see of a job, put together from what the queue has."""

from __future__ import annotations

from runpod_worker.core.job import Job, Status
from runpod_worker.service.http import wire
from runpod_worker.service.queue.queue import JobQueue


async def render_job(queue: JobQueue, job: Job, *, timings: bool = False, webhook: bool = False) -> bytes:
    """Return what a caller, or with `webhook` its receiver, sees of the job."""
    if job.status is Status.IN_QUEUE:
        return wire.render_view(job)
    request, output = await queue.request(job.id), await queue.output(job.id)
    return wire.render_view(
        job,
        source=bytes(wire.parse_stored(request).input) if request else None,
        output=output,
        timings=queue.reports.timings(job.id) if timings else None,
        webhook=webhook,
    )


async def render_webhook(queue: JobQueue, job_id: str) -> bytes | None:
    """Return what the job's webhook is sent (protocol A.8); None if the job has not ended, or runs again."""
    job = await queue.jobs.get_committed(job_id)
    if job is None or not job.final:
        return None
    return await render_job(queue, job, webhook=True)
