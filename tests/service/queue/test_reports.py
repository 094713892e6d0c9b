"""What the service keeps of the workers' reports."""

from runpod_worker.testing import InProcessService, ManualClock

PAST_THE_LEASE_S = 60.0


async def test_the_progress_of_a_retried_job_replaces_that_of_its_lost_attempts() -> None:
    clock = ManualClock()
    with clock.driving():
        async with InProcessService(now=clock) as service:
            job_id = await service.submit(1)
            for attempt, worker in enumerate(("a", "b"), 1):
                await take(service, worker)
                assert await report_progress(service, worker, job_id, attempt, seq=9) == 200
                await clock.advance(PAST_THE_LEASE_S)
            assert (await service.view(job_id))["status"] == "FAILED"

            await service.request("POST", f"/retry/{job_id}")
            await take(service, "c")
            await report_progress(service, "c", job_id, 3, seq=1)

            assert (await service.view(job_id))["output"] == "from c"


async def take(service: InProcessService, worker: str) -> None:
    reply = await service.request("GET", f"/job-take/{worker}", headers={"X-Worker-Extensions": "attempt"})
    assert reply.status == 200


async def report_progress(service: InProcessService, worker: str, job_id: str, attempt: int, *, seq: int) -> int:
    headers = {"X-Worker-Extensions": "attempt", "X-Attempt": str(attempt)}
    body = {"status": "IN_PROGRESS", "output": f"from {worker}", "seq": seq}
    return (await service.request("POST", f"/job-done/{worker}/{job_id}", body, headers=headers)).status
