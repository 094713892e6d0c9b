"""The life of jobs in a real worker: taken, run, delivered."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 30.0

ECHO = """
@worker.handler
def handler(job):
    return job["input"]
"""


async def echo(job: Any) -> Any:
    return job.input


async def count(job: Any) -> Any:
    for number in range(job.input):
        yield number


async def save(job: Any) -> str:
    job.save(b"PNG", "out.bin")
    return "saved"


async def test_a_job_is_taken_run_and_reported(service: Any, start_agent: Any) -> None:
    await start_agent(echo)

    await service.add({"id": "a", "input": {"x": 1}})

    assert await service.result("a") == {"output": {"x": 1}}
    assert service.to("ping")[0].at < service.to("job-take")[0].at


async def test_the_users_own_process_can_be_the_executor(service: Any, start_worker: Any) -> None:
    worker = await start_worker(ECHO, as_executor=True)
    await service.add({"id": "a", "input": {"x": 1}})

    assert await service.result("a") == {"output": {"x": 1}}
    assert await worker.terminate() == 0


async def test_each_of_many_jobs_ends_once(agreed: Any, start_agent: Any) -> None:
    await start_agent(echo)
    await agreed.add(*({"id": f"j{i}", "input": i, "attempt": 1} for i in range(300)))

    await agreed.until(lambda: len(agreed.to("job-done")) >= 300)

    assert {job: result["output"] for job, result in agreed.results().items()} == {f"j{i}": i for i in range(300)}
    assert agreed.counted()["job-done"] == 300


async def test_a_job_without_input_fails_at_once_and_the_worker_goes_on(service: Any, start_agent: Any) -> None:
    await start_agent(echo)
    service.script("job-take", b'{"id":"bad"}')
    await service.add({"id": "good", "input": {}})

    assert "input" in (await service.result("bad"))["error"]
    assert await service.result("good") == {"output": {}} or await service.result("good") == {}


async def test_timings_go_with_results_where_that_is_agreed(agreed: Any, start_agent: Any) -> None:
    await start_agent(echo)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})
    first = (await agreed.result("a"))["timings"]
    await agreed.add({"id": "b", "input": 1, "attempt": 1})
    second = (await agreed.result("b"))["timings"]

    assert 0 <= first["inputReady"] <= first["started"] <= first["finished"] <= first["encoded"]
    assert {"loadS", "startupS"} <= set(first)
    assert set(second) == {"inputReady", "started", "finished", "encoded"}


async def test_nothing_is_sent_to_a_plain_service_that_it_does_not_expect(service: Any, start_agent: Any) -> None:
    await start_agent(echo)
    await service.add({"id": "a", "input": 1, "attempt": 1})
    await service.result("a")

    assert set(service.counted()) <= {"ping", "job-take", "job-take-batch", "job-stop", "job-done"}
    assert not [name for sent in service.requests for name in sent.headers if name.startswith("x-")]
    assert service.to("job-done")[0].json == {"output": 1}


async def test_the_slot_is_free_before_the_result_is_delivered(service: Any, start_agent: Any) -> None:
    service.delay("job-done", 0.5)
    await start_agent(echo)
    await service.add(*({"id": f"j{i}", "input": i} for i in range(3)))

    first, *_, last = await service.requests_to("job-done", 3)

    assert last.at - first.at < 0.5


async def test_a_free_worker_waits_in_a_held_request_and_asks_nothing_else(service: Any, start_agent: Any) -> None:
    await start_agent(echo)
    await service.requests_to("job-take")
    await service.add({"id": "a", "input": 1})
    await service.result("a")

    await service.requests_to("job-take", 2)
    before = service.counted()
    await asyncio.sleep(0.7)  # the absence of requests has no event to wait for

    assert service.counted() == before


async def test_a_service_that_does_not_hold_is_not_hammered(service: Any, start_agent: Any) -> None:
    service.poll_timeout_s = 0
    await start_agent(echo)
    await service.requests_to("job-take", 3)
    before = len(service.requests)

    await asyncio.sleep(2)  # a rate needs a time

    assert len(service.requests) - before < 30
    await service.add({"id": "a", "input": 1})
    assert await service.result("a") == {"output": 1}


# ---------------------------------------------------------------- chunks and progress


async def test_chunks_are_posted_one_by_one_in_order_before_the_result(service: Any, start_agent: Any) -> None:
    await start_agent(count)
    await service.add({"id": "a", "input": 50})

    assert await service.result("a") == {"output": []}

    chunks = service.to("job-stream")
    assert [sent.json["output"] for sent in chunks] == list(range(50))
    [done] = service.to("job-done")
    assert done.query["isStream"] == "true"
    assert service.requests.index(done) > service.requests.index(chunks[-1])


async def test_chunks_travel_together_where_that_is_agreed(agreed: Any, start_agent: Any) -> None:
    await start_agent(count)
    agreed.delay("job-stream", 0.1)
    await agreed.add({"id": "a", "input": 2000, "attempt": 1})

    await agreed.result("a")

    posts = [sent.json for sent in agreed.to("job-stream")]
    assert [chunk for post in posts for chunk in post["outputs"]] == list(range(2000))
    assert len(posts) < 20
    index = 0
    for post in posts:
        assert post["index"] == index
        index += len(post["outputs"])


async def test_a_chunk_that_was_not_acknowledged_is_sent_again_before_the_next(service: Any, start_agent: Any) -> None:
    await start_agent(count)
    service.script("job-stream", 500, 200, 503)
    await service.add({"id": "a", "input": 4})

    await service.result("a")

    assert [sent.json["output"] for sent in service.to("job-stream")] == [0, 0, 1, 1, 2, 3]


async def test_a_generator_waits_when_its_chunks_cannot_leave(service: Any, start_worker: Any) -> None:
    service.delay("job-stream", 60)
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            for i in range(400):
                if i == 300:
                    print("FAR", flush=True)
                yield "x" * 500_000
        """
    )
    await service.add({"id": "a", "input": 1})
    await service.requests_to("job-stream")

    await asyncio.sleep(1.5)  # the absence of a line has no event to wait for

    assert "FAR" not in worker.log


async def test_progress_is_ordered_and_never_follows_the_result(service: Any, start_agent: Any) -> None:
    async def handler(job: Any) -> str:
        for number in range(100):
            job.progress(number)
            if number % 10 == 0:
                await asyncio.sleep(0.01)
        return "end"

    service.delay("job-done", 0.02)
    await start_agent(handler)
    await service.add({"id": "a", "input": 1})

    await service.result("a")
    await asyncio.sleep(0.1)  # nothing may follow, and nothing has no event

    *progress, result = [sent.json for sent in service.to("job-done")]
    values = [value["output"] for value in progress]
    assert values == sorted(set(values))
    assert all(value["status"] == "IN_PROGRESS" for value in progress)
    assert result == {"output": "end"}


# ---------------------------------------------------------------- executors that die


@pytest.mark.parametrize(
    ("death", "text"),
    [
        ("os._exit(3)", "exited with code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    ],
)
async def test_a_job_whose_process_dies_fails_at_once_and_the_worker_goes_on(
    service: Any, start_worker: Any, death: str, text: str
) -> None:
    await start_worker(
        f"""
        @worker.handler
        def handler(job):
            if job["input"] == "die":
                print("last line", file=sys.stderr, flush=True)
                {death}
            return os.getpid()
        """
    )
    await service.add({"id": "a", "input": "die"})
    await service.add({"id": "b", "input": "live"})

    error = (await service.result("a"))["error"]
    assert text in error
    assert ("handler0.py" if "SEGV" in text else "last line") in error  # a segfault prints a long traceback
    assert (await service.result("b"))["output"]


async def test_jobs_that_waited_behind_a_dead_process_are_run_not_failed(service: Any, start_worker: Any) -> None:
    await start_worker(
        """
        @worker.handler
        def handler(job):
            if job["input"] == "die":
                time.sleep(0.3)
                os._exit(3)
            return job["input"]
        """
    )
    await service.add(*({"id": f"warm{i}", "input": i} for i in range(200)))
    await service.add({"id": "bad", "input": "die"}, *({"id": f"j{i}", "input": i} for i in range(200)))

    await service.until(lambda: len(service.results()) == 401)

    assert [job for job, result in service.results().items() if "error" in result] == ["bad"]


async def test_an_executor_that_is_the_parent_and_dies_is_reported_and_ends_the_worker(
    service: Any, start_worker: Any
) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        as_executor=True,
    )
    await service.add({"id": "a", "input": 1})

    assert "died" in (await service.result("a"))["error"]
    assert await worker.exit() == -signal.SIGKILL


async def test_an_executor_does_not_outlive_its_agent(service: Any, start_worker: Any) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            return os.getpid()
        """
    )
    await service.add({"id": "a", "input": 1})
    executor = (await service.result("a"))["output"]

    worker.signal(signal.SIGKILL)
    await worker.exit()

    assert await _ended(executor)


async def test_a_handlers_process_whose_agent_dies_exits_with_an_error(service: Any, start_worker: Any) -> None:
    worker = await start_worker(
        """
        @worker.handler
        def handler(job):
            import subprocess
            return int(subprocess.check_output(["pgrep", "-P", str(os.getpid())]).split()[0])
        """,
        as_executor=True,
    )
    await service.add({"id": "a", "input": 1})
    agent = (await service.result("a"))["output"]

    os.kill(agent, signal.SIGKILL)

    assert await worker.exit() != 0


async def test_a_model_that_cannot_be_loaded_says_why_and_exits_with_an_error(service: Any, start_worker: Any) -> None:
    for as_executor in (False, True):
        worker = await start_worker(
            """
            @worker.model
            def load():
                raise RuntimeError("no such weights")

            @worker.handler
            def handler(job, model):
                return 1
            """,
            as_executor=as_executor,
        )

        assert await worker.exit() == 1
        assert "no such weights" in worker.log
    assert not service.to("job-take")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("sys.exit(0)", "without worker.start()"),
        ("os._exit(7)", "exited with code 7 3 times before it was ready"),
    ],
)
async def test_a_program_that_never_gets_ready_ends_the_worker(
    service: Any, start_worker: Any, source: str, text: str
) -> None:
    worker = await start_worker(source)

    assert await worker.exit() == 1
    assert text in worker.log


async def _ended(pid: int) -> bool:
    """Whether the process ends in time. A zombie has ended."""
    for _ in range(1500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        await asyncio.sleep(0.02)
    return False


# ---------------------------------------------------------------- files


async def test_files_are_stored_before_the_result_that_names_them(agreed: Any, start_agent: Any) -> None:
    agreed.script("files", 503)
    agreed.delay("files", 0.1)
    await start_agent(save)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})

    await agreed.result("a")

    refused, stored = agreed.to("files")
    assert (refused.method, stored.method, stored.body) == ("PUT", "PUT", b"PNG")
    assert stored.path.endswith("/files/a/token/out.bin")
    [done] = agreed.to("job-done")
    assert agreed.requests.index(stored) < agreed.requests.index(done)


async def test_a_finished_job_whose_process_dies_before_its_file_has_left_fails(agreed: Any, start_agent: Any) -> None:
    finished = asyncio.Event()

    async def handler(job: Any) -> Any:
        job.files = 1  # announced, and never sent
        finished.set()
        return "a URL"

    worker = await start_agent(handler)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})
    await asyncio.wait_for(finished.wait(), TIMEOUT_S)
    await asyncio.sleep(0.1)  # its outcome waits for the file
    assert agreed.results() == {}
    worker.executor.exit()

    assert "was killed by SIGKILL before the file was sent" in (await agreed.result("a"))["error"]


async def test_a_worker_that_ends_waits_for_the_files_of_finished_jobs(agreed: Any, start_agent: Any) -> None:
    finished = asyncio.Event()

    async def handler(job: Any) -> Any:
        asyncio.get_running_loop().call_later(0.5, job.save, b"late", "late.bin")
        job.files = 1
        finished.set()
        return "a URL"

    worker = await start_agent(handler)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})
    await asyncio.wait_for(finished.wait(), TIMEOUT_S)
    await asyncio.sleep(0.1)

    assert await worker.terminate() == 0
    assert (await agreed.result("a"))["output"] == "a URL"
    assert [request.body for request in agreed.to("files")] == [b"late"]


async def test_a_file_that_is_refused_fails_its_job(agreed: Any, start_agent: Any) -> None:
    agreed.script("files", (413, b'{"status":413,"detail":"too large"}'))
    await start_agent(save)
    await agreed.add({"id": "a", "input": 1, "attempt": 1})

    result = await agreed.result("a")

    assert "out.bin" in result["error"]
    assert "too large" in result["error"]
