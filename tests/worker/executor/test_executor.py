"""The executor as a real process, spoken to over its channel."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import msgspec
import pytest

from runpod_worker.worker.executor.window import CEILING
from runpod_worker.worker.ipc import channel
from runpod_worker.worker.ipc.messages import (
    Chunks,
    Done,
    File,
    FileFailed,
    LoadFailed,
    Progress,
    Ready,
    Revoke,
    Run,
    Started,
    Stop,
    ToAgent,
    WindowUpdate,
)

WAIT_S = 30.0

HEAD = """
import asyncio, os, sys, threading, time
from runpod_worker import InputError, Job, JobStopped, Worker
worker = Worker()
"""


class Executor:
    """A running handler file; what it sends can be awaited."""

    def __init__(self, folder: Path, code: str, **env: str) -> None:
        file = folder / "handler.py"
        file.write_text(HEAD + textwrap.dedent(code) + "\nworker.start()\n")
        ours, theirs = channel.pair()
        self.child = subprocess.Popen(
            [sys.executable, "-W", "error", str(file)],
            pass_fds=[theirs.fileno()],
            env={
                "PATH": os.environ["PATH"],
                "RUNPOD_WORKER_CHANNEL_FD": str(theirs.fileno()),
                "RUNPOD_POD_ID": "worker-1",
                "RUNPOD_WORKER_STOP_GRACE": "2",
                **env,
            },
            cwd=folder,
        )
        theirs.close()
        self.seen: list[ToAgent] = []
        self._frames: asyncio.Queue[ToAgent | None] = asyncio.Queue()
        self.channel = channel.AgentChannel(
            ours, on_message=self._frames.put_nowait, on_closed=lambda error: self._frames.put_nowait(None)
        )

    async def next(self) -> ToAgent | None:
        frame = await asyncio.wait_for(self._frames.get(), WAIT_S)
        if frame is not None:
            self.seen.append(frame)
        return frame

    async def until(self, kind: type, key: str | None = None):
        async with asyncio.timeout(WAIT_S):
            while (frame := await self.next()) is not None:
                if isinstance(frame, kind) and key in (None, getattr(frame, "key", None)):
                    return frame
        raise AssertionError(f"the executor is gone; it sent {self.seen}")

    async def ready(self) -> Ready:
        return await self.until(Ready)

    def run(self, key: str = "a", value=None, **more) -> None:
        job = {"id": f"job-{key}", "input": {} if value is None else value}
        self.channel.send(Run(key=key, body=msgspec.json.encode(job), taken_at=time.monotonic(), **more))

    async def output(self, key: str = "a", value=None):
        self.run(key, value)
        done = await self.until(Done, key)
        assert done.error is None, done.error
        return json.loads(done.output)

    async def exit(self) -> int:
        self.channel.close()
        return await asyncio.to_thread(self.child.wait, WAIT_S)


@pytest.fixture
async def start(tmp_path):
    started: list[Executor] = []

    def start(code: str, **env: str) -> Executor:
        started.append(Executor(tmp_path, code, **env))
        return started[-1]

    yield start
    for executor in started:
        executor.channel.close()
        executor.child.kill()
        await asyncio.to_thread(executor.child.wait, WAIT_S)


# ------------------------------------------------------------------ start


async def test_ready_tells_what_was_declared_and_loaded(start):
    executor = start("""
        @worker.model
        def load():
            return {"weights": 7}
        @worker.handler(timeout=9, aggregate=True, refresh=True, concurrency=3)
        def handler(job, model):
            yield model["weights"]
    """)

    ready = await executor.ready()

    assert (ready.kind, ready.slots, ready.device, ready.timeout_s) == ("generator", 3, "cpu", 9.0)
    assert ready.aggregate
    assert ready.refresh
    assert await executor.output() == [7]


async def test_concurrency_from_outside_wins(start):
    executor = start("@worker.handler\nasync def handler(job): ...", RUNPOD_WORKER_CONCURRENCY="5")

    assert (await executor.ready()).slots == 5


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "@worker.model\ndef load(): raise OSError('no such checkpoint')\n@worker.handler\ndef h(job, m): ...",
            "no such",
        ),
        ("@worker.model\ndef load(): sys.exit(3)\n@worker.handler\ndef h(job, m): ...", "SystemExit: 3"),
        ("", "there is no handler"),
        ("@worker.handler\ndef h(job, model): ...", "asks for a model"),
        ("@worker.check\ndef fit(): raise RuntimeError('GPU too hot')\n@worker.handler\ndef h(job): ...", "too hot"),
        ("@worker.warmup\ndef w(): return {'n': 0}\n@worker.handler\ndef h(job): 1 / job['input']['n']", "warm-up"),
    ],
    ids=["raises", "exits", "no-handler", "no-model", "check", "warmup"],
)
async def test_a_failed_load_says_why_and_exits(start, code, said):
    executor = start(code)

    assert said in (await executor.until(LoadFailed)).error
    assert await executor.exit() == 1


async def test_a_device_that_is_not_there_is_refused(start):
    executor = start("@worker.handler\ndef h(job): ...", RUNPOD_WORKER_DEVICE="cuda:7")

    assert "cuda:7 was asked for" in (await executor.until(LoadFailed)).error


async def test_hooks_run_in_order_and_may_be_coroutines(start, tmp_path):
    executor = start("""
        steps = []
        @worker.model
        async def load():
            steps.append("load")
            return "model"
        @worker.check
        def check(model):
            steps.append(f"check {model}")
        @worker.warmup
        def examples():
            return [{"n": 1}, {"n": 2}]
        @worker.handler
        def handler(job, model):
            steps.append(job["input"]["n"])
            job.progress(1)
            job.save(b"x", "x.bin")
            return steps
        @worker.shutdown
        def bye(model):
            with open("bye", "w") as file:
                file.write(model)
    """)
    await executor.ready()

    assert await executor.output(value={"n": 3}) == ["load", "check model", 1, 2, 3]
    assert not any(isinstance(frame, Progress | File) and frame.key == "warmup" for frame in executor.seen)
    assert await executor.exit() == 0
    assert (tmp_path / "bye").read_text() == "model"


# ------------------------------------------------------------------ jobs


FOUR_KINDS = {
    "function": "def handler(job):\n    return job['input']['n'] * 2",
    "coroutine": "async def handler(job):\n    await asyncio.sleep(0)\n    return job['input']['n'] * 2",
    "generator": "def handler(job):\n    yield from range(job['input']['n'])",
    "async_generator": "async def handler(job):\n    for i in range(job['input']['n']):\n        yield i",
}


@pytest.mark.parametrize("kind", FOUR_KINDS)
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_each_kind_runs_jobs_one_done_each(start, kind, concurrency):
    executor = start(f"@worker.handler(concurrency={concurrency}, aggregate=True)\n{FOUR_KINDS[kind]}")
    assert (await executor.ready()).kind == kind

    for n in range(30):
        executor.run(str(n), {"n": n})
    dones = [await executor.until(Done) for _ in range(30)]

    for done in dones:
        n = int(done.key)
        expected = list(range(n)) if "generator" in kind else n * 2
        assert json.loads(done.output) == expected
        assert done.is_stream == ("generator" in kind)
        assert done.timings.input_ready <= done.timings.started <= done.timings.finished <= done.timings.encoded
    assert sorted(frame.key for frame in executor.seen if isinstance(frame, Started)) == sorted(map(str, range(30)))
    assert await executor.exit() == 0
    assert len([frame for frame in executor.seen if isinstance(frame, Done)]) == 30


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
async def test_chunks_arrive_complete_in_order_and_before_done(start, kind):
    executor = start(f"@worker.handler\n{FOUR_KINDS[kind]}")
    await executor.ready()

    executor.run(value={"n": 5000})
    done = await executor.until(Done)

    frames = [frame for frame in executor.seen if isinstance(frame, Chunks)]
    outputs = [output for frame in frames for output in frame.outputs]
    assert outputs == [str(i).encode() for i in range(5000)]
    position = 0
    for frame in frames:
        assert frame.index == position
        position += len(frame.outputs)
    assert done.output == b"[]"
    assert done.timings.first_chunk is not None


async def test_the_first_chunk_does_not_wait_for_the_second(start):
    executor = start("""
        @worker.handler
        def handler(job):
            yield "first"
            time.sleep(60)
    """)
    await executor.ready()
    executor.run()

    assert (await executor.until(Chunks)).outputs == [b'"first"']


async def test_progress_is_ordered_ends_with_the_latest_and_never_follows_done(start):
    executor = start("""
        @worker.handler
        def handler(job):
            for i in range(500):
                job.progress(i)
            threading.Thread(target=lambda: [job.progress("late") for _ in range(1000)]).start()
    """)
    await executor.ready()
    for n in range(5):
        executor.run(str(n))
        await executor.until(Done, str(n))
    await executor.exit()

    for key in map(str, range(5)):
        mine = [frame for frame in executor.seen if getattr(frame, "key", None) == key]
        assert isinstance(mine[-1], Done)
        numbers = [json.loads(f.value) for f in mine if isinstance(f, Progress) and f.value != b'"late"']
        assert numbers == sorted(numbers)


async def test_a_progress_that_is_not_json_is_told_to_the_handler(start):
    executor = start("""
        @worker.handler
        def handler(job):
            job.progress({"step": [object()]})
    """)
    await executor.ready()
    executor.run()

    assert (await executor.until(Done)).error.startswith("progress.step[0] is an object")


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt()", "JobStopped('own')", "ValueError('no')"])
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_whatever_a_handler_raises_fails_the_job_and_the_worker_goes_on(start, raised, kind):
    executor = start(f"""
        @worker.handler
        {kind} handler(job):
            if job["input"].get("ok"):
                return "fine"
            raise {raised}
    """)
    await executor.ready()
    executor.run()
    error = json.loads((await executor.until(Done)).error)

    assert raised.partition("(")[0] in error["error_type"]
    assert error["worker_id"] == "worker-1"
    assert error["error_traceback"].count("File ") == 1
    assert await executor.output("b", {"ok": True}) == "fine"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"id": "x"}', "job.input is missing"),
        (b"[1]", "expected object"),
        (b"{", "not JSON"),
        (b'{"id": "x", "input": {"steps": 0}}', "input.steps: expected int >= 1, got 0 (int)"),
        (b'{"id": "x", "input": {"steps": 7}}', "ZeroDivisionError"),
    ],
)
async def test_a_bad_job_fails_at_once_while_another_one_runs(start, body, said):
    executor = start("""
        import msgspec
        from typing import Annotated
        class Input(msgspec.Struct):
            steps: Annotated[int, msgspec.Meta(ge=1)]
            def __post_init__(self):
                1 / (self.steps - 7)
        @worker.handler
        def handler(job: Job[Input]):
            time.sleep(60)
    """)
    await executor.ready()
    executor.run("slow", {"steps": 1})
    await executor.until(Started, "slow")

    executor.channel.send(Run(key="bad", body=body, taken_at=0.0))

    assert said in (await executor.until(Done, "bad")).error


async def test_a_plain_function_is_treated_by_what_it_returned(start):
    executor = start("""
        async def coroutine(n): return n
        async def agen(n):
            for i in range(n): yield i
        def gen(n): yield from range(n)
        @worker.handler(aggregate=True)
        def handler(job):
            return {"c": coroutine, "a": agen, "g": gen}[job["input"]["what"]](3)
    """)
    assert (await executor.ready()).kind == "function"

    assert await executor.output("1", {"what": "c"}) == 3
    assert await executor.output("2", {"what": "a"}) == [0, 1, 2]
    assert await executor.output("3", {"what": "g"}) == [0, 1, 2]


async def test_a_yielded_error_ends_the_stream_and_keeps_what_was_collected(start):
    executor = start("""
        @worker.handler(aggregate=True)
        def handler(job):
            yield 1
            yield {"error": {"code": 7}}
            yield 2
    """)
    await executor.ready()
    executor.run()
    done = await executor.until(Done)

    assert (done.error, done.output, done.is_stream) == ('{"code":7}', b"[1]", True)


async def test_async_jobs_share_the_loop_of_the_model(start):
    executor = start("""
        @worker.model
        async def load():
            return asyncio.get_running_loop()
        waiting = []
        @worker.handler(concurrency=2)
        async def handler(job, loop):
            waiting.append(loop.create_future())
            if len(waiting) == 2:
                for future in waiting:
                    future.set_result("together")
            return await waiting[0]
    """)
    await executor.ready()
    executor.run("a")
    executor.run("b")

    assert [(await executor.until(Done)).output for _ in "ab"] == [b'"together"'] * 2


async def test_large_inputs_and_outputs_pass(start):
    executor = start("@worker.handler\ndef handler(job): return job['input']")
    await executor.ready()
    value = "x" * 8_000_000

    assert await executor.output(value=value) == value


# ------------------------------------------------------------------ stops

STOPPABLE = {
    "function": """
        def handler(job):
            job.progress(1)
            time.sleep(60 if "stop" in job["input"] else 0)
    """,
    "function in a thread": """
        def handler(job):
            job.progress(1)
            while "stop" in job["input"]:
                time.sleep(0.01)
    """,
    "coroutine": """
        async def handler(job):
            job.progress(1)
            await asyncio.sleep(60 if "stop" in job["input"] else 0)
    """,
    "generator": """
        def handler(job):
            yield 1
            job.progress(1)
            time.sleep(60 if "stop" in job["input"] else 0)
    """,
    "async_generator": """
        async def handler(job):
            yield 1
            job.progress(1)
            await asyncio.sleep(60 if "stop" in job["input"] else 0)
    """,
    "returned coroutine": """
        def handler(job):
            async def inner():
                job.progress(1)
                await asyncio.sleep(60 if "stop" in job["input"] else 0)
            return inner()
    """,
}


@pytest.mark.parametrize("kind", STOPPABLE)
async def test_a_stop_breaks_out_of_whatever_the_handler_waits_for(start, kind):
    concurrency = 2 if "thread" in kind else 1
    executor = start(f"@worker.handler(concurrency={concurrency})\n{textwrap.dedent(STOPPABLE[kind]).strip()}")
    await executor.ready()
    for n in range(10):
        executor.run(f"a{n}", {"stop": 1})
        await executor.until(Progress, f"a{n}")
        executor.channel.send(Stop(key=f"a{n}", reason="cancelled"))
        done = await executor.until(Done, f"a{n}")

        assert done.stopped
        assert done.output is None
        assert done.error is None
        executor.run(f"b{n}")
        assert (await executor.until(Done, f"b{n}")).error is None


@pytest.mark.parametrize("busy", ["job.save(bytes(20_000), 'x.bin')", "job.progress(1)", "job.log.info('x')"])
async def test_a_stop_that_comes_while_a_job_speaks_breaks_nothing(start, busy):
    executor = start(
        f"""
        @worker.handler
        def handler(job):
            while True:
                {busy}
    """,
        RUNPOD_LOG_LEVEL="ERROR",
    )
    await executor.ready()

    for n in range(20):
        executor.run(str(n), files_url="http://service/files")
        await executor.until(Started, str(n))
        executor.channel.send(Stop(key=str(n), reason="cancelled"))
        done = await executor.until(Done, str(n))
        assert done.stopped
        while sum(isinstance(f, File) and f.key == str(n) for f in executor.seen) < done.files:
            await executor.next()
    assert await executor.exit() == 0


async def test_a_stopped_handler_sees_why_and_can_clean_up(start):
    executor = start("""
        said = []
        @worker.handler
        def handler(job):
            if "ask" in job["input"]:
                return said
            try:
                job.progress(1)
                time.sleep(60)
            except Exception:
                said.append("Exception must not catch a stop")
            except JobStopped as stop:
                said.extend([str(stop), job.cancelled])
                raise
    """)
    await executor.ready()
    executor.run()
    await executor.until(Progress)
    executor.channel.send(Stop(key="a", reason="cancelled"))
    await executor.until(Done, "a")

    assert await executor.output("b", {"ask": 1}) == ["cancelled", True]


async def test_a_generator_that_waits_at_its_yield_is_stopped_there(start):
    executor = start("""
        said = []
        @worker.handler
        def handler(job):
            if "ask" in job["input"]:
                yield said
                return
            try:
                while True:
                    yield "x" * 100_000
            finally:
                said.append(str(sys.exc_info()[0]))
    """)
    await executor.ready()
    executor.run()
    await executor.until(Chunks)
    executor.channel.send(Stop(key="a", reason="cancelled"))
    assert (await executor.until(Done, "a")).stopped

    executor.run("b", {"ask": 1})
    assert b"JobStopped" in (await executor.until(Chunks, "b")).outputs[0]


async def test_a_result_that_comes_after_the_stop_is_not_sent(start):
    executor = start("""
        @worker.handler
        async def handler(job):
            try:
                job.progress(1)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed"
    """)
    await executor.ready()
    executor.run()
    await executor.until(Progress)
    executor.channel.send(Stop(key="a", reason="cancelled"))
    done = await executor.until(Done)

    assert done.stopped
    assert done.output is None


async def test_only_the_stopped_one_of_two_jobs_ends(start):
    executor = start("""
        @worker.handler(concurrency=2)
        def handler(job):
            job.progress(1)
            while job["id"] != "job-c":
                time.sleep(0.001)
    """)
    await executor.ready()
    executor.run("a")
    executor.run("b")
    await executor.until(Progress)
    await executor.until(Progress)

    executor.channel.send(Stop(key="a", reason="cancelled"))

    assert (await executor.until(Done, "a")).stopped
    executor.run("c")
    await executor.until(Done, "c")
    assert not any(isinstance(frame, Done) and frame.key == "b" for frame in executor.seen)


async def test_stops_that_race_the_end_of_jobs_hit_no_other_job(start):
    executor = start("""
        @worker.handler
        def handler(job):
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            return job["id"]
    """)
    await executor.ready()
    for n in range(400):
        executor.run(str(n))
        if n % 2:
            await executor.until(Started, str(n - 1))
            executor.channel.send(Stop(key=str(n - 1), reason="cancelled"))
    while sum(isinstance(frame, Done) for frame in executor.seen) < 400:
        await executor.next()

    for frame in executor.seen:
        if isinstance(frame, Done) and int(frame.key) % 2:
            assert json.loads(frame.output) == f"job-{frame.key}"
        elif isinstance(frame, Done):
            assert frame.stopped or json.loads(frame.output) == f"job-{frame.key}"
    assert await executor.exit() == 0


async def test_a_stop_or_unrun_of_a_waiting_job_is_answered_while_another_runs(start):
    executor = start("""
        @worker.handler
        def handler(job):
            time.sleep(60)
    """)
    await executor.ready()
    for key in "abc":
        executor.run(key)
    await executor.until(Started, "a")

    executor.channel.send(Revoke(key="b"), Stop(key="c", reason="cancelled"), Revoke(key="a"), Revoke(key="unknown"))

    assert (await executor.until(Done, "b")).revoked
    assert (await executor.until(Done, "c")).stopped
    executor.channel.send(Stop(key="a", reason="cancelled"))
    assert (await executor.until(Done, "a")).stopped
    assert [frame.key for frame in executor.seen if isinstance(frame, Started)] == ["a"]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_timeouts_fail_the_job_with_the_limit_in_words(start, kind):
    executor = start(f"""
        @worker.handler(timeout=0.05)
        {kind} handler(job):
            {"await asyncio" if "async" in kind else "time"}.sleep(60)
    """)
    await executor.ready()

    executor.run("a")
    done = await executor.until(Done, "a")
    assert (done.error, done.stopped) == ("the handler's timeout of 0.05 s exceeded", False)

    executor.run("b", timeout_s=0.01)
    assert (await executor.until(Done, "b")).error == "executionTimeout exceeded"


# ------------------------------------------------------------------ files


async def test_saved_files_are_counted_and_sent_as_they_were_when_saved(start):
    executor = start("""
        from PIL import Image
        @worker.handler
        def handler(job):
            picture = Image.new("RGB", (64, 64), "red")
            url = job.save(picture, "a b.png")
            picture.paste("blue", (0, 0, 64, 64))
            data = bytearray(b"abc")
            job.save(data, "data.bin")
            data[:] = b"xyz"
            job.save(Image.new("RGBA", (4, 4)), "broken.jpg")
            return url
    """)
    await executor.ready()
    executor.run(files_url="http://service/files")
    done = None
    files = []
    while done is None or len(files) < done.files:
        frame = await executor.next()
        done = frame if isinstance(frame, Done) else done
        if isinstance(frame, File | FileFailed):
            files.append(frame)

    picture, data, broken = files
    assert json.loads(done.output) == f"http://service/files/job-a/{picture.token}/a%20b.png"
    assert len(picture.token) >= 22
    assert picture.content_type == "image/png"
    assert picture.body.startswith(b"\x89PNG")
    (Path(executor.child.args[-1]).parent / "a.png").write_bytes(picture.body)
    from PIL import Image

    with Image.open(Path(executor.child.args[-1]).parent / "a.png") as image:
        assert image.getpixel((1, 1)) == (255, 0, 0)
    assert data.body == b"abc"
    assert "broken.jpg could not be encoded" in broken.error


STREAMS = {
    "threads": """
        @worker.handler(concurrency=2)
        def handler(job):
            if job["input"]:
                return "free"
            for n in range(1000):
                print("chunk", n, file=open("said", "a"), flush=True)
                yield "x" * 1_000_000
    """,
    "loop": """
        @worker.handler(concurrency=2)
        async def handler(job):
            if job["input"]:
                yield "free"
                return
            for n in range(1000):
                print("chunk", n, file=open("said", "a"), flush=True)
                yield "x" * 1_000_000
    """,
}
STREAMS["threads"] = STREAMS["threads"].replace('return "free"', 'yield "free"\n                return')


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_waits_for_its_own_credit_only_and_a_stop_ends_the_wait(start, tmp_path, kind):
    executor = start(STREAMS[kind])
    await executor.ready()
    executor.run("slow")
    size = 0
    while size <= CEILING:
        size += sum(map(len, (await executor.until(Chunks, "slow")).outputs))

    executor.run("quick", 1)
    assert (await executor.until(Done, "quick")).error is None
    assert size == sum(len(chunk) for one in executor.seen if isinstance(one, Chunks) for chunk in one.outputs[:1]) - 6

    executor.channel.send(WindowUpdate("slow", size))
    again = 0
    while again <= CEILING:
        again += sum(map(len, (await executor.until(Chunks, "slow")).outputs))
    executor.channel.send(Stop("slow", "cancelled"))

    assert (await executor.until(Done, "slow")).stopped
    assert len((tmp_path / "said").read_text().splitlines()) <= (size + again) // 1_000_000 + 1


async def test_files_of_a_job_without_credit_keep_no_other_jobs_files(start):
    executor = start("""
        @worker.handler(concurrency=2)
        async def handler(job):
            for n in range(job["input"]):
                job.save(bytes(3_000_000), f"{n}.bin")
    """)
    await executor.ready()
    executor.run("large", 5, files_url="http://s/files")
    await executor.until(Done, "large")
    executor.run("small", 1, files_url="http://s/files")

    await executor.until(File, "small")

    assert len([one for one in executor.seen if isinstance(one, File) and one.key == "large"]) == 2
    executor.channel.send(WindowUpdate("large", 6_000_000))
    for _ in range(2):
        await executor.until(File, "large")


async def test_without_a_file_store_a_saved_file_is_a_data_url(start):
    executor = start("@worker.handler\ndef handler(job): return job.save(b'hi', 'hello.txt')")
    await executor.ready()

    assert await executor.output() == "data:text/plain;base64,aGk="


# ------------------------------------------------------------------ life and death


async def test_signals_of_the_terminal_are_the_agents_business(start):
    executor = start("@worker.handler\ndef handler(job): return os.getpid()")
    await executor.ready()

    executor.child.send_signal(signal.SIGINT)
    executor.child.send_signal(signal.SIGTERM)

    assert await executor.output() == executor.child.pid


@pytest.mark.parametrize("kind", FOUR_KINDS)
async def test_an_executor_whose_agent_died_stops_its_job_and_exits(start, kind):
    code = {
        "function": "def handler(job):\n    time.sleep(60)",
        "coroutine": "async def handler(job):\n    await asyncio.sleep(60)",
        "generator": "def handler(job):\n    yield 1\n    time.sleep(60)",
        "async_generator": "async def handler(job):\n    yield 1\n    await asyncio.sleep(60)",
    }[kind]
    executor = start(f"@worker.handler\n{code}")
    await executor.ready()
    executor.run("a")
    executor.run("b")
    await executor.until(Started, "a")

    assert await executor.exit() in (0, 2)


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_shutdown_hooks_run_when_the_agent_died_too(start, tmp_path, kind):
    executor = start(f"""
        @worker.handler
        {kind} handler(job):
            {"await asyncio" if "async" in kind else "time"}.sleep(60)
        @worker.shutdown
        def bye():
            open("bye", "w").close()
    """)
    await executor.ready()
    executor.run()
    await executor.until(Started)

    await executor.exit()

    assert (tmp_path / "bye").exists()


async def test_an_executor_that_cannot_stop_its_job_does_not_outlive_its_agent(start):
    executor = start(
        """
        @worker.handler
        def handler(job):
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        """,
        RUNPOD_WORKER_STOP_GRACE="0.2",
    )
    await executor.ready()
    executor.run()
    await executor.until(Started)

    assert await executor.exit() == 2


async def test_an_executor_whose_agent_died_while_it_loads_exits(start, tmp_path):
    executor = start(
        """
        @worker.model
        def load():
            open("loading", "w").close()
            time.sleep(60)
        @worker.handler
        def handler(job, model): ...
        """,
        RUNPOD_WORKER_STOP_GRACE="0.2",
    )

    assert await executor.exit() == 2


async def test_standard_output_of_the_handler_is_left_alone(start, tmp_path):
    executor = start("@worker.handler\ndef handler(job): print('hello'); print('oops', file=sys.stderr)")
    await executor.ready()

    assert await executor.output() is None


async def test_what_a_job_took_is_free_when_it_has_ended(start):
    executor = start("""
        import resource
        @worker.handler
        def handler(job):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    """)
    await executor.ready()
    before = await executor.output("first")
    for number in range(40):
        await executor.output(f"large{number}", "x" * 4_000_000)

    assert await executor.output("last") - before < 80 * 1024  # kilobytes; the inputs are 160 MB
