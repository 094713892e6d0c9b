"""Files that jobs name: downloaded before the job or in it, and removed after it."""

import base64
import json
import os
import tempfile
import threading
from pathlib import Path

import pytest

from runpod_worker.config import download_settings
from runpod_worker.core.dispatch.messages import Done, Revoke, Started, Stop
from runpod_worker.worker.executor.files.inputs import Downloads, JobFiles
from runpod_worker.worker.handler.job import File

WAIT_S = 30.0

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


@pytest.fixture
def start(start, tmp_path, monkeypatch):
    """Start an executor that may download from the server of the test, and wait until it is ready."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def start_ready(code, **env):
        executor = start(code, **{"RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "true", **env})
        executor.ready()
        return executor

    return start_ready


def happened(event: threading.Event) -> bool:
    return event.wait(WAIT_S)


def end(executor) -> None:
    """End the executor, and see that it leaves no file."""
    executor.exit()
    assert list(Path(tempfile.gettempdir()).rglob("*")) == []


# ------------------------------------------------------------------ ahead


def test_a_download_overlaps_the_job_that_runs(start, file_server, tmp_path):
    executor = start(READS)
    slow = file_server.slow("/my%20song.mp3", b"la la la")
    os.mkfifo(tmp_path / "fifo")
    executor.run("a", {"wait": "fifo"})
    executor.until(Started, "a")

    executor.run("b", {"audio": file_server.url("/my%20song.mp3?key=1")})
    assert happened(slow.requested)  # while a runs
    slow.release()
    (tmp_path / "fifo").write_text("go on")

    running = executor.until(Done, "a")
    done = executor.until(Done, "b")
    assert json.loads(done.output) == ["my song.mp3", "la la la"]
    assert running.timings.started < done.timings.input_ready < done.timings.started
    end(executor)


def test_a_slow_download_does_not_block_the_jobs_behind_it(start, file_server):
    executor = start(READS)
    slow = file_server.slow("/slow.txt")
    file_server.files["/quick.txt"] = b"quick"
    executor.run("a", {"audio": file_server.url("/slow.txt")})

    assert executor.output("b", {"audio": file_server.url("/quick.txt")}) == ["quick.txt", "quick"]
    assert executor.output("c", {}) is None

    slow.release()
    assert json.loads(executor.until(Done, "a").output) == ["slow.txt", "slow"]
    end(executor)


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
def test_each_kind_of_input_may_hold_files(start, file_server, kind, how):
    head = "input=Request" if how == "input" else ""
    annotation = ": Job[Request]" if how == "annotation" else ""
    executor = start(
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

    output = executor.output("a", {"one": file_server.url("/a"), "more": ["data:,b", encoded]})

    assert output == ["a", "b", "c"]
    end(executor)


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
def test_a_failed_download_fails_the_job_and_names_the_field(start, file_server, value, error):
    executor = start(
        "class Request(msgspec.Struct):\n    one: File\n    more: list[File] = []\n"
        "@worker.handler(input=Request)\ndef handler(job): return 'called'",
        RUNPOD_MAX_DOWNLOAD_BYTES="10",
    )
    file_server.files["/404"] = 404
    root = file_server.url("")
    text = json.dumps(value).replace('"/404', f'"{root}/404')

    done = executor.done("a", json.loads(text))

    assert error.replace("http://127.0.0.1:PORT", root) in done.error
    assert "secret" not in done.error
    assert done.timings is None  # it never had a slot
    end(executor)


def test_private_addresses_are_refused(start, file_server):
    executor = start(READS, RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS="false")

    error = executor.done("a", {"audio": file_server.url("/a")}).error

    assert "input.audio: " in error
    assert "127.0.0.1 is not a public address" in error
    assert file_server.requested == []


def test_a_failed_download_ends_the_others_of_its_job(start, file_server):
    executor = start(
        "class Request(msgspec.Struct):\n    files: list[File]\n"
        "@worker.handler(input=Request)\ndef handler(job): return 'called'",
        RUNPOD_MAX_DOWNLOAD_BYTES="10",
    )
    slow, large = file_server.slow("/slow"), file_server.slow("/large", b"x" * 11)
    executor.run("a", {"files": [file_server.url("/slow"), file_server.url("/large")]})
    assert happened(slow.requested)

    large.release()

    assert "input.files[1]: " in executor.until(Done, "a").error
    assert happened(slow.left)
    end(executor)


def test_downloads_that_were_stopped_do_not_begin(file_server):
    files = JobFiles(Downloads(download_settings()))
    files.decode_field(File, file_server.url("/a"))

    files.stop("cancelled")

    assert files.start({}).cancelled()


@pytest.mark.parametrize("order", [Stop("a", "cancelled"), Revoke("a")])
def test_a_stopped_or_revoked_job_ends_its_download(start, file_server, order):
    executor = start(READS)
    slow = file_server.slow("/a")
    executor.run("a", {"audio": file_server.url("/a")})
    assert happened(slow.requested)

    executor.send(order)

    done = executor.until(Done, "a")
    assert (done.stopped, done.revoked) == (isinstance(order, Stop), isinstance(order, Revoke))
    assert happened(slow.left)
    assert executor.output("b", {"audio": "data:,next"}) == ["file", "next"]
    end(executor)


def test_warm_ups_may_name_files_too(start):
    executor = start(
        "seen = []\n"
        "@worker.warmup\ndef example(): return {'audio': 'data:,warm'}\n"
        + READS.replace("    if", "    seen.append(job.input.audio.read_text())\n    if", 1).replace(
            "return job", "return seen or job"
        )
    )

    assert executor.output("a", {"audio": "data:,a"}) == ["warm", "a"]
    end(executor)


# ------------------------------------------------------------------ in the job


def test_a_handler_fetches_a_file_once_and_finds_it_gone_in_the_next_job(start, file_server):
    executor = start("""
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

    path = executor.output("a", {"before": None, "url": file_server.url("/a.txt")})

    assert file_server.requested == ["/a.txt", "/a.txt?other"]
    end(executor)
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
def test_a_fetch_that_fails_says_why(start, file_server, source, error):
    executor = start("@worker.handler\ndef handler(job): return job.fetch(job['input'], limit=5).name")
    file_server.files |= {"/404": 404, "/large": b"123456"}
    named = isinstance(source, str) and source.startswith("/")

    done = executor.done("a", file_server.url(source) if named else source)

    assert error in done.error
    assert "secret" not in done.error
    end(executor)


def test_a_fetch_that_failed_may_be_tried_again_and_a_smaller_limit_counts(start, file_server):
    executor = start("""
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

    output = executor.output("a", file_server.url("/a"))

    larger = "the file is larger than 5 bytes (RUNPOD_MAX_DOWNLOAD_BYTES)"
    assert output == [larger, "123456", "expected at most 5 bytes, got 6"]


HANDLERS = {
    "main thread": "@worker.handler\ndef handler(job):\n    return fetched(job)",
    "pool": "@worker.handler(concurrency=2)\ndef handler(job):\n    return fetched(job)",
    "loop": "@worker.handler\nasync def handler(job):\n    return await asyncio.to_thread(fetched, job)",
}


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_stop_ends_a_fetch_of_a_running_handler(start, file_server, handler):
    executor = start(f"def fetched(job):\n    return job.fetch(job['input']).name\n{handler}")
    slow = file_server.slow("/a")
    executor.run("a", file_server.url("/a"))
    assert happened(slow.requested)

    executor.send(Stop("a", "cancelled"))

    assert executor.until(Done, "a").stopped
    assert happened(slow.left)
    assert executor.output("b", "data:,b") == "file"
    end(executor)


def test_a_handlers_timeout_ends_its_fetch(start, file_server):
    executor = start("@worker.handler(timeout=0.2)\ndef handler(job): return job.fetch(job['input']).name")
    slow = file_server.slow("/a")

    done = executor.done("a", file_server.url("/a"))

    assert "the handler's timeout of 0.2 s exceeded" in done.error
    assert happened(slow.left)
    end(executor)
