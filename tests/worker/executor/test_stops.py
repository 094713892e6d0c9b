"""Stops, revokes and timeouts."""

import json
import re
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import runpod_worker
from runpod_worker.core.dispatch.messages import Chunks, Done, File, Progress, Revoke, Started, Stop
from runpod_worker.worker.handler.declaration import WRAPPING_FILES

PACKAGE = Path(runpod_worker.__file__).parent

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
                time.sleep(0.001)
                job.metric("turns", 1)
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
def test_a_stop_breaks_out_of_whatever_the_handler_waits_for(start, kind):
    concurrency = 2 if "thread" in kind else 1
    executor = start(f"@worker.handler(concurrency={concurrency})\n{textwrap.dedent(STOPPABLE[kind]).strip()}")
    executor.ready()
    for n in range(10):
        executor.run(f"a{n}", {"stop": 1})
        executor.until(Progress, f"a{n}")
        executor.send(Stop(key=f"a{n}", reason="cancelled"))
        done = executor.until(Done, f"a{n}")

        assert done.stopped
        assert done.output is None
        assert done.error is None
        executor.run(f"b{n}")
        assert executor.until(Done, f"b{n}").error is None


WRAPPED = {
    "openai.chat": """
        from runpod_worker import openai
        @worker.handler
        @openai.chat(models=["m"])
        def handler(request):
            request.job.progress(1)
            time.sleep(60)
    """,
    "openai.chat, a generator": """
        from runpod_worker import openai
        @worker.handler
        @openai.chat(models=["m"])
        def handler(request):
            yield "text"
            request.job.progress(1)
            time.sleep(60)
    """,
    "--rp_debugger": """
        from runpod_worker.serverless.utils import rp_debugger
        def handler(job):
            job.progress(1)
            time.sleep(60)
        worker.handler(rp_debugger.with_report(handler, 0.0))
    """,
    "FunctionTimer": """
        from runpod_worker.serverless.utils import rp_debugger
        @rp_debugger.FunctionTimer
        def inner(job):
            job.progress(1)
            time.sleep(60)
        @worker.handler
        def handler(job):
            inner(job)
    """,
    "LineTimer": """
        from runpod_worker.serverless.utils import rp_debugger
        @worker.handler
        def handler(job):
            with rp_debugger.LineTimer("sleep"):
                job.progress(1)
                time.sleep(60)
    """,
}
"""A handler below each of the public wrappers."""


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_stop_breaks_out_of_a_handler_below_any_wrapper(start, wrapper):
    executor = start(WRAPPED[wrapper])
    executor.ready()
    executor.run("a", {"messages": [{"role": "user", "content": "x"}]})
    executor.until(Progress, "a")

    executor.send(Stop(key="a", reason="cancelled"))

    assert executor.until(Done, "a").stopped


def test_each_file_of_ours_that_wraps_functions_is_known_to_stops():
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"}
    call = re.compile(r"^\s*@?functools\.(wraps|update_wrapper)\(", re.MULTILINE)
    wrapping = {str(path) for path, code in sources.items() if call.search(code)}
    for path in wrapping:
        import_module("runpod_worker." + ".".join(Path(path).relative_to(PACKAGE).with_suffix("").parts))

    assert wrapping == WRAPPING_FILES


@pytest.mark.parametrize("busy", ["job.save(bytes(20_000), 'x.bin')", "job.progress(1)", "job.log.info('x')"])
def test_a_stop_during_a_call_of_the_job_breaks_nothing(start, busy):
    executor = start(
        f"""
        @worker.handler
        def handler(job):
            while True:
                {busy}
    """,
        RUNPOD_LOG_LEVEL="ERROR",
    )
    executor.ready()

    for n in range(20):
        executor.run(str(n), files_url="http://service/files")
        executor.until(Started, str(n))
        executor.send(Stop(key=str(n), reason="cancelled"))
        done = executor.until(Done, str(n))
        assert done.stopped
        while sum(isinstance(message, File) and message.key == str(n) for message in executor.seen) < done.files:
            executor.next()
    executor.exit()


def test_a_stopped_handler_sees_why_and_can_clean_up(start):
    executor = start("""
        seen = []
        @worker.handler
        def handler(job):
            if "ask" in job["input"]:
                return seen
            try:
                job.progress(1)
                time.sleep(60)
            except Exception:
                seen.append("Exception must not catch a stop")
            except JobStopped as stop:
                seen.extend([str(stop), job.cancelled])
                raise
    """)
    executor.ready()
    executor.run()
    executor.until(Progress)
    executor.send(Stop(key="a", reason="cancelled"))
    executor.until(Done, "a")

    assert executor.output("b", {"ask": 1}) == ["cancelled", True]


def test_a_generator_that_waits_at_its_yield_is_stopped_there(start):
    executor = start("""
        seen = []
        @worker.handler
        def handler(job):
            if "ask" in job["input"]:
                yield seen
                return
            try:
                while True:
                    yield "x" * 100_000
            finally:
                seen.append(str(sys.exc_info()[0]))
    """)
    executor.ready()
    executor.run()
    executor.until(Chunks)
    executor.send(Stop(key="a", reason="cancelled"))
    assert executor.until(Done, "a").stopped

    executor.run("b", {"ask": 1})
    assert b"JobStopped" in executor.until(Chunks, "b").outputs[0]


def test_a_result_that_comes_after_the_stop_is_not_sent(start):
    executor = start("""
        @worker.handler
        async def handler(job):
            try:
                job.progress(1)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed"
    """)
    executor.ready()
    executor.run()
    executor.until(Progress)
    executor.send(Stop(key="a", reason="cancelled"))
    done = executor.until(Done)

    assert done.stopped
    assert done.output is None


def test_only_the_stopped_one_of_two_jobs_ends(start):
    executor = start("""
        @worker.handler(concurrency=2)
        def handler(job):
            job.progress(1)
            while job["id"] != "job-c" and not job.cancelled:
                time.sleep(0.001)
    """)
    executor.ready()
    executor.run("a")
    executor.run("b")
    executor.until(Progress)
    executor.until(Progress)

    executor.send(Stop(key="a", reason="cancelled"))

    assert executor.until(Done, "a").stopped
    executor.run("c")
    executor.until(Done, "c")
    assert not any(isinstance(message, Done) and message.key == "b" for message in executor.seen)


@pytest.mark.parametrize("call", ["job.progress(1)", "job.metric('n', 1)", "job.save(b'x', 'x.bin')"])
def test_in_one_thread_of_several_a_stop_comes_with_the_next_call_of_the_job_and_only_once(start, call):
    executor = start(f"""
        seen = []
        @worker.handler(concurrency=2)
        def handler(job):
            try:
                job.progress(1)
                while True:
                    time.sleep(0.001)
                    {call}
            except JobStopped as stop:
                job.progress("cleaning up")
                seen.append(str(stop))
                raise
    """)
    executor.ready()
    executor.run()
    executor.until(Progress)

    executor.send(Stop(key="a", reason="cancelled"))

    assert executor.until(Done, "a").stopped
    assert executor.names["seen"] == ["cancelled"]


def test_a_generator_in_one_thread_of_several_stops_between_two_chunks(start):
    executor = start("""
        seen = []
        @worker.handler(concurrency=2)
        def handler(job):
            try:
                while True:
                    yield 1
            finally:
                seen.append(str(sys.exc_info()[0]))
    """)
    executor.ready()
    executor.run()
    executor.until(Chunks)

    executor.send(Stop(key="a", reason="cancelled"))

    assert executor.until(Done, "a").stopped
    assert "JobStopped" in executor.names["seen"][0]


def test_one_thread_of_several_is_not_interrupted_and_its_late_output_is_dropped(start):
    executor = start("""
        release = threading.Event()
        @worker.handler(concurrency=2)
        def handler(job):
            job.progress(1)
            release.wait()
            return [job.cancelled]
    """)
    executor.ready()
    executor.run()
    executor.until(Progress)

    executor.send(Stop(key="a", reason="cancelled"))
    executor.names["release"].set()
    done = executor.until(Done, "a")

    assert done.stopped
    assert done.output is None


def test_a_stop_breaks_out_of_a_function_that_answers_openai_clients(start):
    executor = start("""
        from runpod_worker import openai
        @worker.handler
        @openai.chat(models=["m"])
        def handler(request):
            request.job.progress(1)
            time.sleep(60)
    """)
    executor.ready()
    executor.run(value={"messages": [{"role": "user", "content": "hi"}]})
    executor.until(Progress)

    executor.send(Stop(key="a", reason="cancelled"))

    assert executor.until(Done, "a").stopped


def test_stops_that_race_the_end_of_jobs_hit_no_other_job(start):
    executor = start("""
        @worker.handler
        def handler(job):
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            return job["id"]
    """)
    executor.ready()
    for n in range(400):
        executor.run(str(n))
        if n % 2:
            executor.until(Started, str(n - 1))
            executor.send(Stop(key=str(n - 1), reason="cancelled"))
    while sum(isinstance(message, Done) for message in executor.seen) < 400:
        executor.next()

    for message in executor.seen:
        if isinstance(message, Done) and int(message.key) % 2:
            assert json.loads(message.output) == f"job-{message.key}"
        elif isinstance(message, Done):
            assert message.stopped or json.loads(message.output) == f"job-{message.key}"
    executor.exit()


def test_a_stop_or_revoke_of_a_waiting_job_is_answered_while_another_runs(start):
    executor = start("""
        @worker.handler
        def handler(job):
            time.sleep(60)
    """)
    executor.ready()
    for key in "abc":
        executor.run(key)
    executor.until(Started, "a")

    executor.send(Revoke(key="b"), Stop(key="c", reason="cancelled"), Revoke(key="a"), Revoke(key="unknown"))

    assert executor.until(Done, "b").revoked
    assert executor.until(Done, "c").stopped
    executor.send(Stop(key="a", reason="cancelled"))
    assert executor.until(Done, "a").stopped
    assert [message.key for message in executor.seen if isinstance(message, Started)] == ["a"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_timeouts_fail_the_job_with_the_limit_in_words(start, kind):
    executor = start(f"""
        @worker.handler(timeout=0.05)
        {kind} handler(job):
            {"await asyncio" if "async" in kind else "time"}.sleep(60)
    """)
    executor.ready()

    executor.run("a")
    done = executor.until(Done, "a")
    assert (done.error, done.stopped) == ("the handler's timeout of 0.05 s exceeded", False)

    executor.run("b", timeout_s=0.01)
    assert executor.until(Done, "b").error == "executionTimeout exceeded"
