"""`progress_update(job, value)`."""

import copy
import logging
import pickle
import textwrap

from runpod_worker.serverless import progress_update
from runpod_worker.worker.handler.job import Job

IMPORT = "import runpod_worker as runpod\n"


async def test_updates_are_in_order_and_none_follows_the_result(work):
    code = """
        def handler(job):
            for step in range(50):
                runpod.serverless.progress_update(job, step)
            return "done"
        runpod.serverless.start({"handler": handler})
    """
    seen, worker = await work(IMPORT + textwrap.dedent(code), {"id": "a", "input": 1})
    await worker.stop()

    *progress, result = [request.body for request in seen.jobs["a"]]
    steps = [update["output"] for update in progress]
    assert all(update["status"] == "IN_PROGRESS" for update in progress)
    assert steps == sorted(steps)
    assert result == {"output": "done"}


async def test_the_id_is_enough_and_so_is_a_copy(work):
    code = """
        import copy, time
        def handler(job):
            runpod.serverless.progress_update({"id": job["id"]}, "by id")
            time.sleep(0.3)
            runpod.serverless.progress_update(copy.deepcopy(job), "by copy")
            time.sleep(0.3)
            return "done"
        runpod.serverless.start({"handler": handler})
    """
    seen, _ = await work(IMPORT + textwrap.dedent(code), {"id": "a", "input": 1})

    assert [request.body["output"] for request in seen.jobs["a"]] == ["by id", "by copy", "done"]


def test_an_unknown_job_and_an_unsendable_value_are_logged_not_raised(caplog):
    class JobBackend:
        def progress(self, value):
            from runpod_worker.worker.executor import results

            results.encode(value, "progress")

    with caplog.at_level(logging.WARNING, "runpod_worker"):
        progress_update({"id": "nobody"}, 1)
        progress_update(Job({"id": "a"}, JobBackend()), object())  # type: ignore[arg-type]

    assert [record.message for record in caplog.records] == ["progress.ignored", "progress.rejected"]


def test_copies_of_a_job_are_jobs():
    job = Job({"id": "a", "input": {"deep": [1]}})

    for made in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):
        assert made == job
        assert isinstance(made, Job)
    assert copy.deepcopy(job)["input"]["deep"] is not job["input"]["deep"]
