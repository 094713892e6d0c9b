"""`serverless.start(config)`: keys, flags, local runs, the way out."""

import json
import subprocess
import sys
import textwrap

import pytest

IMPORT = "import runpod_worker as runpod\n"


def job(name, job_input=None):
    return {"id": name, "input": job_input}


def last(seen, name):
    return seen.jobs[name][-1].body


def run_once(tmp_path, code, *arguments):
    handler = tmp_path / "handler.py"
    handler.write_text(IMPORT + textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, str(handler), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


async def test_jobs_run_and_start_returns_after_sigterm(work):
    seen, worker = await work(
        IMPORT + "runpod.serverless.start({'handler': lambda job: job['input']})\nprint('after')",
        job("a", 1),
        job("b", 2),
    )

    assert await worker.stop() == 0
    assert (last(seen, "a"), last(seen, "b")) == ({"output": 1}, {"output": 2})
    assert worker.output.startswith("--- Starting Serverless Worker |  Version 1.12.0 ---\n")
    assert worker.output.endswith("after\n")


async def test_return_aggregate_stream_and_refresh_worker_are_taken_from_the_configuration(work):
    code = """
        def handler(job):
            yield from "ab"
        runpod.serverless.start({"handler": handler, "return_aggregate_stream": True, "refresh_worker": True})
    """
    seen, worker = await work(IMPORT + textwrap.dedent(code), job("a"))

    assert last(seen, "a") == {"output": ["a", "b"], "stopPod": True}
    assert await worker.ended() == 0


async def test_a_modifier_changes_how_many_jobs_run_at_once(work):
    code = """
        import asyncio
        barrier = asyncio.Barrier(3)
        async def handler(job):
            await barrier.wait()  # passed by three jobs at once only
            return job["input"]
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: min(3, current + 1)})
    """
    seen, _ = await work(IMPORT + textwrap.dedent(code), *(job(str(number), number) for number in range(3)))

    assert [last(seen, str(number)) for number in range(3)] == [{"output": number} for number in range(3)]


@pytest.mark.parametrize("modifier", ["1 / 0", "0", "'many'", "None", "True", "-1"])
async def test_a_modifier_that_fails_or_makes_no_sense_is_logged_and_changes_nothing(work, modifier):
    code = f"""
        async def handler(job):
            return "fine"
        runpod.serverless.start({{"handler": handler, "concurrency_modifier": lambda current: {modifier}}})
    """
    seen, worker = await work(IMPORT + textwrap.dedent(code), job("a"), job("b"))

    assert last(seen, "b") == {"output": "fine"}
    assert "concurrency." in worker.output


async def test_a_plain_function_keeps_one_slot_whatever_its_modifier_says(work):
    code = """
        running = []
        def handler(job):
            running.append(1)
            count = len(running)
            running.pop()
            return count
        runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda current: 8})
    """
    seen, worker = await work(IMPORT + textwrap.dedent(code), *(job(str(n)) for n in range(6)), RUNPOD_LOG_LEVEL="WARN")

    assert all(last(seen, str(n)) == {"output": 1} for n in range(6))
    assert "concurrency.ignored" in worker.output


async def test_a_coroutine_behind_a_plain_function_finds_its_loop_again_with_the_next_job(work):
    code = """
        import asyncio
        loops = []
        async def inner(job):
            loops.append(asyncio.get_running_loop())
            return len(set(loops))
        runpod.serverless.start({"handler": lambda job: inner(job)})
    """
    seen, _ = await work(IMPORT + textwrap.dedent(code), job("a"), job("b"))

    assert last(seen, "b") == {"output": 1}


def test_rp_args_are_filled_and_known_flags_leave_the_command_line(tmp_path):
    done = run_once(
        tmp_path,
        """
        import sys, json
        def handler(job):
            return [config["rp_args"]["test_input"], config["rp_args"]["rp_debugger"], sys.argv[1:]]
        config = {"handler": handler}
        runpod.serverless.start(config)
        """,
        "--mine",
        "--test_input",
        '{"input": {"a": 1}}',
        "--rp_log_level",
        "INFO",
    )

    assert done.returncode == 0, done.stderr
    shown = done.stdout.partition("output ")[2].partition("time ")[0]
    assert json.loads(shown) == [{"input": {"a": 1}}, None, ["--mine"]]
    assert "INFO   | Log level set to INFO" in done.stdout


def test_an_error_on_a_test_input_ends_the_process_with_1(tmp_path):
    done = run_once(
        tmp_path, "runpod.serverless.start({'handler': lambda job: {'error': 'no'}})", "--test_input", '{"input": 1}'
    )

    assert done.returncode == 1


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("{}", "handler: expected a function that takes a job, got NoneType"),
        ("{'handler': 5}", "handler: expected a function that takes a job, got int"),
        (
            "{'handler': print, 'concurrency_modifier': 3}",
            "concurrency_modifier: expected a function of the current number, got int",
        ),
    ],
)
def test_what_cannot_be_started_is_said(tmp_path, config, text):
    done = run_once(tmp_path, f"runpod.serverless.start({config})", "--test_input", '{"input": 1}')

    assert done.returncode == 1
    assert text in done.stderr


def test_fitness_checks_do_not_run_on_a_test_input(tmp_path):
    code = """
        @runpod.serverless.register_fitness_check
        def check():
            raise RuntimeError("unfit")
        runpod.serverless.start({"handler": lambda job: "ran"})
    """

    assert run_once(tmp_path, code, "--test_input", '{"input": 1}').returncode == 0


LOOP = """
    import asyncio
    async def handler(job):
        return isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)  # what nest_asyncio demands
    runpod.serverless.start({"handler": handler})
"""


async def test_a_handler_for_the_sdk_runs_on_asyncios_own_loop(work, tmp_path):
    seen, _ = await work(IMPORT + textwrap.dedent(LOOP), job("a"))
    local = run_once(tmp_path, LOOP, "--test_input", '{"input": 1}')

    assert last(seen, "a") == {"output": True}
    assert "output     true" in local.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is installed on Linux only")
async def test_uvloop_runs_it_when_the_setting_says_so(work):
    seen, _ = await work(IMPORT + textwrap.dedent(LOOP), job("a"), RUNPOD_WORKER_UVLOOP="true")

    assert last(seen, "a") == {"output": False}
