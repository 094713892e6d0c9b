"""`run_once`: one job in this process, for users' own tests."""

import asyncio
import json
import logging
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runpod_worker import File, Worker
from runpod_worker.core.errors import CheckFailed, DeclarationError, JobStopped
from runpod_worker.worker.launch.once import run_once


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path, monkeypatch):
    """No call leaves a thread, a folder, a log handler or a signal handler behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = logging.getLogger("runpod_worker")
    threads, before = set(threading.enumerate()), (log.handlers[:], log.level, signal.getsignal(signal.SIGURG))
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(2)  # the thread that interrupted a handler may be about to notice
    assert set(threading.enumerate()) == threads
    assert (log.handlers, log.level, signal.getsignal(signal.SIGURG)) == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith("runpod")] == []


def function(job):
    return {"got": job["input"]}


async def coroutine(job):
    await asyncio.sleep(0)
    return {"got": job["input"]}


def generator(job):
    yield from job["input"]


async def async_generator(job):
    for value in job["input"]:
        yield value


@pytest.mark.parametrize("handler", [function, coroutine])
def test_a_bare_handlers_output_is_the_result(handler):
    result = run_once(handler, [1])

    assert (result.status, result.output, result.error) == ("COMPLETED", {"got": [1]}, None)


@pytest.mark.parametrize("handler", [generator, async_generator])
def test_what_a_generator_yields_is_in_chunks(handler):
    worker = Worker()
    worker.handler(aggregate=True)(handler)

    assert run_once(handler, [1, {"a": 2}]).chunks == [1, {"a": 2}]
    assert run_once(worker, [1, {"a": 2}]).output == [1, {"a": 2}]


def test_every_progress_is_there_in_order_with_files_and_logs():
    def handler(job):
        for number in range(20):
            job.progress(number)
        job.log.info("drawn", extra={"size": 3})
        job.metric("steps", 2)
        return job.save(b"picture", "out.png")

    result = run_once(handler, {})

    assert result.progress == list(range(20))
    assert (result.output, result.files) == ("files/out.png", {"out.png": b"picture"})
    assert result.logs == ["INFO drawn size=3", "INFO job.metrics metrics={'steps': 2.0}"]


def test_what_the_handler_raises_is_the_error_that_callers_read():
    def handler(job):
        raise ValueError("no such picture")

    result = run_once(handler, {})

    assert result.status == "FAILED"
    assert result.error is not None
    assert json.loads(result.error)["error_message"] == "no such picture"


def test_the_model_is_loaded_once_for_all_calls_and_hooks_run_as_in_a_worker():
    worker, calls = Worker(), []

    @worker.model
    def load(device):
        calls.append(f"load {device}")
        return {"weights": 1}

    @worker.check
    def check(model):
        calls.append("check")

    @worker.warmup
    def warmup():
        calls.append("warm-up")

    @worker.shutdown
    def shutdown():
        calls.append("shutdown")

    @worker.handler
    def handler(job, model):
        model["weights"] += 1
        return model["weights"]

    assert [worker.run_once(None).output, run_once(worker, None).output] == [2, 3]
    assert calls == [f"load {calls[0].split()[1]}", "check", "warm-up"]


def test_an_async_model_stays_on_the_loop_it_was_loaded_on():
    worker = Worker()

    @worker.model
    async def load():
        return asyncio.get_running_loop()

    @worker.handler
    async def handler(job, loop):
        return [loop is asyncio.get_running_loop(), await asyncio.to_thread(int, "3")]

    assert [worker.run_once(None).output for _ in range(3)] == [[True, 3]] * 3


def test_a_model_or_check_that_fails_raises_here():
    worker = Worker()
    worker.handler(function)

    @worker.check
    def check():
        raise ValueError("no driver")

    with pytest.raises(CheckFailed, match="no driver"):
        worker.run_once({})


def test_a_worker_without_handler_and_a_handler_without_its_model_are_named():
    with pytest.raises(DeclarationError, match="there is no handler"):
        Worker().run_once({})
    with pytest.raises(DeclarationError, match="takes a model"):
        run_once(lambda job, model: None, {})


@dataclass
class Request:
    prompt: str
    picture: File | None = None


def describe(job) -> dict[str, object]:
    return {"prompt": job.input.prompt, "picture": job.input.picture and job.input.picture.read_text()}


def test_input_is_checked_and_files_may_be_local(tmp_path: Path):
    worker = Worker()
    worker.handler(input=Request)(describe)
    (tmp_path / "a.txt").write_text("here")

    right = worker.run_once({"prompt": "x", "picture": str(tmp_path / "a.txt")})
    encoded = worker.run_once({"prompt": "x", "picture": "data:text/plain,there"})
    wrong = worker.run_once({"prompt": 3})

    assert right.output == {"prompt": "x", "picture": "here"}
    assert encoded.output == {"prompt": "x", "picture": "there"}
    assert (wrong.status, wrong.error) == ("FAILED", "input.prompt: expected str, got 3 (int)")


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_the_handlers_timeout_ends_it_where_it_waits(kind):
    worker = Worker()

    @worker.handler(timeout=0.05)
    def blocks(job):
        time.sleep(30)

    if kind == "coroutine":
        worker = Worker()

        @worker.handler(timeout=0.05)
        async def waits(job):
            await asyncio.sleep(30)

    result = worker.run_once({})

    assert (result.status, result.error) == ("FAILED", "the handler's timeout of 0.05 s exceeded")


def test_the_jobs_own_time_counts_too():
    assert run_once(lambda job: time.sleep(30), {}, timeout_s=0.05).error == "executionTimeout exceeded"


def test_a_cancelled_job_sees_job_stopped():
    seen = []

    def handler(job):
        try:
            time.sleep(30)
        except JobStopped as stopped:
            seen.append((str(stopped), job.cancelled))
            raise

    assert run_once(handler, {}, cancel_after_s=0.05).status == "CANCELLED"
    assert seen == [("the job was cancelled", True)]


@pytest.mark.parametrize("handler", [function, coroutine])
async def test_it_works_inside_a_running_event_loop(handler):
    worker = Worker()
    worker.handler(handler)

    assert [worker.run_once(number).output for number in range(2)] == [{"got": 0}, {"got": 1}]


async def test_a_plain_function_in_a_running_event_loop_is_asked_to_stop():
    def handler(job):
        while not job.cancelled:
            time.sleep(0.001)
        return "left by itself"

    assert run_once(handler, {}, timeout_s=0.05).error == "executionTimeout exceeded"


def test_a_call_takes_milliseconds():
    worker = Worker()
    worker.handler(function)
    worker.run_once({})
    began = time.perf_counter()

    for _ in range(20):
        worker.run_once({})

    assert (time.perf_counter() - began) / 20 < 0.02


def interrupted(job):
    signal.raise_signal(signal.SIGINT)
    time.sleep(30)


async def interrupted_coroutine(job):
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(30)


def interrupted_generator(job):
    yield 1
    signal.raise_signal(signal.SIGINT)
    time.sleep(30)


@pytest.mark.parametrize("handler", [interrupted, interrupted_coroutine, interrupted_generator])
def test_ctrl_c_ends_the_call_and_is_no_error_of_the_job(handler):
    with pytest.raises(KeyboardInterrupt):
        run_once(handler, {})

    assert run_once(lambda job: job["input"], 7).output == 7
