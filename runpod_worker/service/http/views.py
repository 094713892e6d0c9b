"""Renders a job for callers and webhook receivers, with its bodies from the queue."""

from __future__ import annotations

from runpod_worker.core.job import Job, Status
from runpod_worker.service.http import wire
from runpod_worker.service.queue.queue import JobQueue


async def render_job(queue: JobQueue, job: Job, *, timings: bool = False, webhook: bool = False) -> bytes:
    """Return the job as its caller sees it, or with `webhook` as its receiver does."""
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
    """Return the body of the job's webhook (protocol A.8); None if the job has not ended, or runs again."""
    job = await queue.jobs.get_committed(job_id)
    if job is None or not job.final:
        return None
    return await render_job(queue, job, webhook=True)
