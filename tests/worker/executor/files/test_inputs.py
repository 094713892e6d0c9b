"""Files that jobs name, in a real executor process: ahead of the job, in the job, and gone after it."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import msgspec
import pytest

from runpod_worker.worker.ipc import channel
from runpod_worker.worker.ipc.messages import Done, Ready, Revoke, Run, Started, Stop

WAIT_S = 30.0

HEAD = """
import asyncio, os, sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
import msgspec
from runpod_worker import File, InputError, Job, JobStopped, Worker
worker = Worker()
"""

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


class Executor:
    """A running handler file."""

    def __init__(self, folder: Path, code: str, **env: str) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        (folder / "handler.py").write_text(HEAD + textwrap.dedent(code) + "\nworker.start()\n")
        ours, theirs = channel.pair()
        mine = {"RUNPOD_WORKER_CHANNEL_FD": str(theirs.fileno()), "TMPDIR": str(self.temporary)}
        allowed = {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true"}
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", "handler.py"],
            pass_fds=[theirs.fileno()],
            env={"PATH": os.environ["PATH"], "RUNPOD_WORKER_STOP_GRACE": "2", **mine, **allowed, **env},
            cwd=folder,
        )
        theirs.close()
        self.frames: asyncio.Queue[object] = asyncio.Queue()
        self.channel = channel.AgentChannel(
            ours, on_message=self.frames.put_nowait, on_closed=lambda error: self.frames.put_nowait(None)
        )

    async def until(self, kind, key=None):
        async with asyncio.timeout(WAIT_S):
            while (frame := await self.frames.get()) is not None:
                if isinstance(frame, kind) and key in (None, getattr(frame, "key", None)):
                    return frame
        raise AssertionError("the executor is gone")

    def run(self, key, value) -> None:
        body = msgspec.json.encode({"id": f"job-{key}", "input": value})
        self.channel.send(Run(key=key, body=body, taken_at=time.monotonic()))

    async def done(self, key, value) -> Done:
        self.run(key, value)
        return await self.until(Done, key)

    async def output(self, key, value):
        done = await self.done(key, value)
        assert done.error is None, done.error
        return json.loads(done.output)

    async def end(self) -> None:
        """Let it end, and see that it leaves nothing behind."""
        self.channel.close()
        assert await asyncio.to_thread(self.child.wait, WAIT_S) is not None
        assert list(self.temporary.rglob("*")) == []


@pytest.fixture
async def start(tmp_path):
    started = []

    async def start(code, **env):
        started.append(Executor(tmp_path, code, **env))
        await started[-1].until(Ready)
        return started[-1]

    yield start
    for executor in started:
        executor.channel.close()
        executor.child.kill()
        await asyncio.to_thread(executor.child.wait, WAIT_S)


async def happened(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, WAIT_S)


# ------------------------------------------------------------------ ahead


async def test_a_download_overlaps_the_job_that_runs(start, file_server, tmp_path):
    executor = await start(READS)
    slow = file_server.slow("/my%20song.mp3", b"la la la")
    os.mkfifo(tmp_path / "fifo")
    executor.run("a", {"wait": "fifo"})
    await executor.until(Started, "a")

    executor.run("b", {"audio": file_server.url("/my%20song.mp3?key=1")})
    assert await happened(slow.requested)  # while a runs
    slow.release()
    (tmp_path / "fifo").write_text("go on")

    running = await executor.until(Done, "a")
    done = await executor.until(Done, "b")
    assert json.loads(done.output) == ["my song.mp3", "la la la"]
    assert running.timings.started < done.timings.input_ready < done.timings.started
    await executor.end()


async def test_a_slow_download_does_not_block_the_jobs_behind_it(start, file_server):
    executor = await start(READS)
    slow = file_server.slow("/slow.txt")
    file_server.files["/quick.txt"] = b"quick"
    executor.run("a", {"audio": file_server.url("/slow.txt")})

    assert await executor.output("b", {"audio": file_server.url("/quick.txt")}) == ["quick.txt", "quick"]
    assert await executor.output("c", {}) is None

    slow.release()
    assert json.loads((await executor.until(Done, "a")).output) == ["slow.txt", "slow"]
    await executor.end()


@pytest.mark.parametrize(
    "kind",
    [
        "class Request(msgspec.Struct):\n    one: File\n    more: list[File]\n    none: File | None = None",
        "@dataclass\nclass Request:\n    one: File\n    more: list[File]\n    none: File | None = None",
        "class Request(TypedDict):\n    one: File\n    more: list[File]",
    ],
    ids=["struct", "dataclass", "typed-dict"],
)
@pytest.mark.parametrize("how", ["input", "annotation"])
async def test_each_kind_of_input_may_hold_files(start, file_server, kind, how):
    head = "input=Request" if how == "input" else ""
    annotation = ": Job[Request]" if how == "annotation" else ""
    executor = await start(
        f"{kind}\n@worker.handler({head})\n"
        f"def handler(job{annotation}):\n"
        "    given = job.input if isinstance(job.input, dict) else vars(job.input) if hasattr(job.input, '__dict__')"
        " else msgspec.structs.asdict(job.input)\n"
        "    assert job['input']['one'].startswith('http')\n"
        "    assert isinstance(given['one'], File) and given.get('none') is None\n"
        "    return [path.read_text() for path in (given['one'], *given['more'])]\n"
    )
    file_server.files["/a"] = b"a"
    encoded = base64.b64encode(b"c").decode()

    output = await executor.output("a", {"one": file_server.url("/a"), "more": ["data:,b", encoded]})

    assert output == ["a", "b", "c"]
    await executor.end()


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"one": "/404?key=secret"}, "input.one: http://127.0.0.1:PORT/404: the server answers 404 Not Found"),
        ({"one": "data:,", "more": ["data:,", "/404"]}, "input.more[1]: http://127.0.0.1:PORT/404: the server answers"),
        ({"one": "la la!"}, "input.one: expected a URL, a data URL or base64, got other text"),
        ({"one": "file:///etc/passwd"}, "input.one: expected a URL, a data URL or base64, got other text"),
        ({"one": "handler.py"}, "input.one: expected a URL, a data URL or base64, got other text"),
        ({"one": 5}, "input.one: expected a URL, a data URL or base64, got 5 (int)"),
        ({"one": "data:,12345678901"}, "input.one: a data URL (text/plain): expected at most 10 bytes, got 11"),
    ],
)
async def test_a_file_that_does_not_come_fails_the_job_by_the_fields_name(start, file_server, value, error):
    executor = await start(
        "class Request(msgspec.Struct):\n    one: File\n    more: list[File] = []\n"
        "@worker.handler(input=Request)\ndef handler(job): return 'called'",
        RUNPOD_MAX_DOWNLOAD_BYTES="10",
    )
    file_server.files["/404"] = 404
    root = file_server.url("")
    text = json.dumps(value).replace('"/404', f'"{root}/404')

    done = await executor.done("a", json.loads(text))

    assert error.replace("http://127.0.0.1:PORT", root) in done.error
    assert "secret" not in done.error
    assert done.timings is None  # it never had a slot
    await executor.end()


async def test_private_addresses_are_refused(start, file_server):
    executor = await start(READS, RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS="false")

    error = (await executor.done("a", {"audio": file_server.url("/a")})).error

    assert "input.audio: " in error
    assert "127.0.0.1 is not a public address" in error
    assert file_server.requested == []


@pytest.mark.parametrize("order", [Stop("a", "cancelled"), Revoke("a")])
async def test_a_job_that_is_given_up_gives_up_its_download(start, file_server, order):
    executor = await start(READS)
    slow = file_server.slow("/a")
    executor.run("a", {"audio": file_server.url("/a")})
    assert await happened(slow.requested)

    executor.channel.send(order)

    done = await executor.until(Done, "a")
    assert (done.stopped, done.revoked) == (isinstance(order, Stop), isinstance(order, Revoke))
    assert await happened(slow.left)
    assert await executor.output("b", {"audio": "data:,next"}) == ["file", "next"]
    await executor.end()


async def test_an_agent_that_goes_away_ends_downloads(start, file_server):
    executor = await start(READS)
    slow = file_server.slow("/a")
    executor.run("a", {"audio": file_server.url("/a")})
    assert await happened(slow.requested)

    await executor.end()

    assert await happened(slow.left)


async def test_what_a_killed_executor_leaves_behind_the_next_one_removes(start, file_server, tmp_path):
    killed = await start(READS)
    os.mkfifo(tmp_path / "fifo")
    killed.run("a", {"audio": "data:,a", "wait": "fifo"})
    await killed.until(Started, "a")
    killed.child.kill()
    await asyncio.to_thread(killed.child.wait, WAIT_S)
    assert list(killed.temporary.rglob("file"))

    await (await start(READS)).end()


async def test_a_living_executors_files_are_nobody_elses_to_remove(start, tmp_path):
    one = await start(READS)
    os.mkfifo(tmp_path / "fifo")
    one.run("a", {"audio": "data:,a", "wait": "fifo"})
    await one.until(Started, "a")

    await start(READS)
    (tmp_path / "fifo").write_text("go on")

    assert json.loads((await one.until(Done, "a")).output) == ["file", "a"]


async def test_warm_ups_may_name_files_too(start):
    executor = await start(
        "seen = []\n"
        "@worker.warmup\ndef example(): return {'audio': 'data:,warm'}\n"
        + READS.replace("    if", "    seen.append(job.input.audio.read_text())\n    if", 1).replace(
            "return job", "return seen or job"
        )
    )

    assert await executor.output("a", {"audio": "data:,a"}) == ["warm", "a"]
    await executor.end()


# ------------------------------------------------------------------ in the job


async def test_a_handler_fetches_a_file_once_and_finds_it_gone_in_the_next_job(start, file_server):
    executor = await start("""
        @worker.handler
        def handler(job):
            if job["input"]["before"]:
                return os.path.exists(job["input"]["before"])
            path = job.fetch(job["input"]["url"])
            assert job.fetch(job["input"]["url"]) == path
            other = job.fetch(job["input"]["url"] + "?other")
            assert other != path and other.name == path.name == "a.txt"
            return str(path)
    """)
    file_server.files["/a.txt"] = b"a"

    path = await executor.output("a", {"before": None, "url": file_server.url("/a.txt")})

    assert file_server.requested == ["/a.txt", "/a.txt?other"]
    await executor.end()
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("/404?key=secret", "/404: the server answers 404"),
        ("/large", "/large: the file is larger than 5 bytes"),
        ("data:,123456", "a data URL (text/plain): expected at most 5 bytes, got 6"),
        ("?", "expected a URL, a data URL or base64, got other text"),
        (7, "job.fetch: expected a URL, a data URL or base64, got 7 (int)"),
    ],
)
async def test_a_fetch_that_fails_says_why(start, file_server, source, error):
    executor = await start("@worker.handler\ndef handler(job): return job.fetch(job['input'], limit=5).name")
    file_server.files |= {"/404": 404, "/large": b"123456"}
    named = isinstance(source, str) and source.startswith("/")

    done = await executor.done("a", file_server.url(source) if named else source)

    assert error in done.error
    assert "secret" not in done.error
    await executor.end()


async def test_a_fetch_that_failed_may_be_tried_again_and_a_smaller_limit_counts(start, file_server):
    executor = await start("""
        @worker.handler
        def handler(job):
            errors = []
            for limit in (5, None, 5):
                try:
                    errors.append(job.fetch(job["input"], limit=limit).read_text())
                except InputError as error:
                    errors.append(str(error).rpartition(": ")[2])
            return errors
    """)
    file_server.files["/a"] = b"123456"

    output = await executor.output("a", file_server.url("/a"))

    larger = "the file is larger than 5 bytes (RUNPOD_MAX_DOWNLOAD_BYTES)"
    assert output == [larger, "123456", "expected at most 5 bytes, got 6"]


HANDLERS = {
    "main thread": "@worker.handler\ndef handler(job):\n    return fetched(job)",
    "pool": "@worker.handler(concurrency=2)\ndef handler(job):\n    return fetched(job)",
    "loop": "@worker.handler\nasync def handler(job):\n    return await asyncio.to_thread(fetched, job)",
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
async def test_a_stop_ends_a_fetch_of_a_running_handler(start, file_server, handler):
    executor = await start(f"def fetched(job):\n    return job.fetch(job['input']).name\n{handler}")
    slow = file_server.slow("/a")
    executor.run("a", file_server.url("/a"))
    assert await happened(slow.requested)

    executor.channel.send(Stop("a", "cancelled"))

    assert (await executor.until(Done, "a")).stopped
    assert await happened(slow.left)
    assert await executor.output("b", "data:,b") == "file"
    await executor.end()


async def test_a_handlers_timeout_ends_its_fetch(start, file_server):
    executor = await start("@worker.handler(timeout=1)\ndef handler(job): return job.fetch(job['input']).name")
    slow = file_server.slow("/a")

    done = await executor.done("a", file_server.url("/a"))

    assert "the handler's timeout of 1 s exceeded" in done.error
    assert await happened(slow.left)
    await executor.end()


# ------------------------------------------------------------------ with an agent


async def test_a_drain_ends_the_download_of_a_job_that_has_not_begun(agreed, start_worker, file_server, tmp_path):
    (tmp_path / "temporary").mkdir()
    allowed = {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true", "TMPDIR": str(tmp_path / "temporary")}
    worker = await start_worker(
        "from pathlib import Path\nfrom runpod_worker import File, Job\nimport msgspec\n" + READS, **allowed
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
    allowed = {"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true"}
    await start_worker(
        "from pathlib import Path\nfrom runpod_worker import File, Job\nimport msgspec\n" + READS, **allowed
    )
    slow = file_server.slow("/a")
    await agreed.add({"id": "a", "input": {"audio": file_server.url("/a")}})
    assert await happened(slow.requested)

    await agreed.stop("a")

    assert await agreed.result("a") == {"stopped": True}
    assert await happened(slow.left)
