"""Files that jobs name, where a process dies, or an agent decides."""

import asyncio
import json
import os
import threading

from runpod_worker.core.dispatch.messages import Done, Started

WAIT_S = 30.0
ALLOWED = {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true"}

READS = """
class Request(msgspec.Struct):
    audio: File | None = None
    wait: str | None = None

@worker.handler(input=Request)
def handler(job):
    if job.input.wait:
        Path(job.input.wait).read_text()  # a FIFO: until the test has written
    return job.input.audio and [job.input.audio.name, job.input.audio.read_text()]
"""


async def start_ready(start_process):
    executor = start_process(READS, **ALLOWED)
    await executor.ready()
    return executor


async def happened(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, WAIT_S)


async def end(executor) -> None:
    """Let the executor end, and see that it leaves no file."""
    await executor.exit()
    assert list(executor.temporary.rglob("*")) == []


async def test_downloads_end_when_the_agent_is_gone(start_process, file_server):
    executor = await start_ready(start_process)
    slow = file_server.slow("/a")
    executor.run("a", {"audio": file_server.url("/a")})
    assert await happened(slow.requested)

    await end(executor)

    assert await happened(slow.left)


async def test_the_next_executor_removes_the_files_of_a_killed_one(start_process, file_server, tmp_path):
    killed = await start_ready(start_process)
    os.mkfifo(tmp_path / "fifo")
    killed.run("a", {"audio": "data:,a", "wait": "fifo"})
    await killed.until(Started, "a")
    killed.child.kill()
    await asyncio.to_thread(killed.child.wait, WAIT_S)
    assert list(killed.temporary.rglob("file"))

    await end(await start_ready(start_process))


async def test_an_executor_leaves_the_files_of_a_living_one(start_process, tmp_path):
    first = await start_ready(start_process)
    os.mkfifo(tmp_path / "fifo")
    first.run("a", {"audio": "data:,a", "wait": "fifo"})
    await first.until(Started, "a")

    await start_ready(start_process)
    (tmp_path / "fifo").write_text("go on")

    assert json.loads((await first.until(Done, "a")).output) == ["file", "a"]


async def test_a_drain_ends_the_download_of_a_job_that_has_not_begun(agreed, start_worker, file_server, tmp_path):
    (tmp_path / "temporary").mkdir()
    worker = await start_worker(
        "from pathlib import Path\nfrom runpod_worker import File, Job\nimport msgspec\n" + READS,
        **ALLOWED,
        TMPDIR=str(tmp_path / "temporary"),
    )
    slow = file_server.slow("/a")
    await agreed.add({"id": "a", "input": {"audio": file_server.url("/a")}})
    assert await happened(slow.requested)

    assert await worker.terminate() == 0

    assert await happened(slow.left)
    assert agreed.to("job-return")
    assert "a" not in agreed.results()
    assert list((tmp_path / "temporary").rglob("*")) == []


async def test_a_service_that_stops_a_job_ends_its_download(agreed, start_worker, file_server):
    await start_worker(
        "from pathlib import Path\nfrom runpod_worker import File, Job\nimport msgspec\n" + READS, **ALLOWED
    )
    slow = file_server.slow("/a")
    await agreed.add({"id": "a", "input": {"audio": file_server.url("/a")}})
    assert await happened(slow.requested)

    await agreed.stop("a")

    assert await agreed.result("a") == {"stopped": True}
    assert await happened(slow.left)
