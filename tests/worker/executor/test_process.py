"""The executor as a real process: its death, signals, standard output, memory."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import runpod_worker
from runpod_worker.core.dispatch.messages import LoadFailed, Started


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("@worker.model\ndef load(): sys.exit(3)\n@worker.handler\ndef h(job, m): ...", "SystemExit: 3"),
        ("", "there is no handler"),
        ("@worker.handler\ndef h(job, model): ...", "asks for a model"),
    ],
    ids=["exits", "no-handler", "no-model"],
)
async def test_a_failed_load_says_why_and_exits(start_process, code, error):
    executor = start_process(code)

    assert error in (await executor.until(LoadFailed)).error
    assert await executor.exit() == 1


async def test_large_inputs_and_outputs_pass(start_process):
    executor = start_process("@worker.handler\ndef handler(job): return job['input']")
    await executor.ready()
    value = "x" * 8_000_000

    assert await executor.output(value=value) == value


async def test_an_executor_ignores_signals_of_the_terminal(start_process):
    executor = start_process("@worker.handler\ndef handler(job): return os.getpid()")
    await executor.ready()

    executor.child.send_signal(signal.SIGINT)
    executor.child.send_signal(signal.SIGTERM)

    assert await executor.output() == executor.child.pid


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async_generator"])
async def test_an_executor_whose_agent_died_stops_its_job_and_exits(start_process, kind):
    code = {
        "function": "def handler(job):\n    time.sleep(60)",
        "coroutine": "async def handler(job):\n    await asyncio.sleep(60)",
        "generator": "def handler(job):\n    yield 1\n    time.sleep(60)",
        "async_generator": "async def handler(job):\n    yield 1\n    await asyncio.sleep(60)",
    }[kind]
    executor = start_process(f"@worker.handler\n{code}")
    await executor.ready()
    executor.run("a")
    executor.run("b")
    await executor.until(Started, "a")

    assert await executor.exit() in (0, 2)


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_shutdown_hooks_run_when_the_agent_died_too(start_process, tmp_path, kind):
    executor = start_process(f"""
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


async def test_an_executor_that_cannot_stop_its_job_does_not_outlive_its_agent(start_process):
    executor = start_process(
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


async def test_an_executor_whose_agent_died_while_it_loads_exits(start_process, tmp_path):
    executor = start_process(
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


async def test_standard_output_of_the_handler_is_left_alone(start_process, tmp_path):
    executor = start_process("@worker.handler\ndef handler(job): print('hello'); print('oops', file=sys.stderr)")
    await executor.ready()

    assert await executor.output() is None


async def test_a_jobs_memory_is_free_once_the_job_has_ended(start_process):
    executor = start_process("""
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


def test_a_handler_may_fail_where_the_package_was_copied_without_its_metadata(tmp_path):
    shutil.copytree(Path(runpod_worker.__file__).parent, tmp_path / "copied" / "runpod_worker")
    others = tmp_path / "others"
    others.mkdir()
    folders = [Path(folder) for folder in sys.path if "site-packages" in folder]
    packages = {path.name: path for folder in folders for path in folder.iterdir()}
    for name, path in packages.items():
        if "runpod" not in name:
            (others / name).symlink_to(path)
    file = tmp_path / "handler.py"
    file.write_text(
        "from runpod_worker import Worker\n"
        "worker = Worker()\n"
        "@worker.handler\n"
        "def handler(job): raise ValueError('the reason')\n"
        "worker.start()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-S", file, "--test_input", '{"input": {}}'],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path / 'copied'}:{others}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "ValueError: the reason" in ended.stdout, ended.stderr
    assert "PackageNotFoundError" not in ended.stderr


@pytest.mark.parametrize("end", ["return 'child'", "sys.exit(3)", "raise ValueError('child')"])
async def test_a_forked_child_never_answers_for_the_job(start_process, end):
    executor = start_process(f"""
        @worker.handler
        def handler(job):
            child = os.fork()
            if child == 0:
                {end}
            os.waitpid(child, 0)
            return "parent"
    """)
    await executor.ready()

    assert await executor.output("a") == "parent"
    assert await executor.output("b") == "parent"
