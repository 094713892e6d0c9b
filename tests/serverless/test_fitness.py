"""Fitness checks: they run before the first job, and a failure is reported and ends the worker."""

import subprocess
import sys
import textwrap
from urllib.parse import parse_qs

import pytest

from runpod_worker.serverless import fitness

IMPORT = "import runpod_worker as runpod\n"


@pytest.fixture(autouse=True)
def _no_checks_of_others():
    fitness.clear_fitness_checks()
    yield
    fitness.clear_fitness_checks()


@pytest.mark.parametrize("command", [(), ("-m", "runpod_worker", "run")], ids=["python", "run"])
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_failed_check_is_told_to_the_service_and_ends_the_worker(recorder, start, kind, command):
    seen = recorder.expect("ep", [{"id": "a", "input": None}])
    code = f"""
        @runpod.serverless.register_fitness_check
        {kind} weights():
            raise RuntimeError("no weights " + "x" * 300)
        runpod.serverless.start({{"handler": lambda job: None}})
    """
    worker = await start(IMPORT + textwrap.dedent(code), command=command, **recorder.environment("ep"))

    assert await worker.ended() == 1
    assert seen.jobs == {"a": []}
    query = parse_qs(seen.unhealthy[0].query)
    assert query["status"] == ["unhealthy"]
    assert query["check"] == ["weights"]
    assert query["reason"][0].startswith("RuntimeError: no weights xxx")
    assert len(query["reason"][0]) == 256


async def test_checks_run_once_in_their_order_before_the_first_job(work):
    code = """
        ran = []
        @runpod.serverless.register_fitness_check
        def first(): ran.append("first")
        @runpod.serverless.register_fitness_check
        async def second(): ran.append("second")
        runpod.serverless.start({"handler": lambda job: ran})
    """
    seen, _ = await work(IMPORT + textwrap.dedent(code), {"id": "a", "input": 1}, {"id": "b", "input": 1})

    assert seen.jobs["b"][-1].body == {"output": ["first", "second"]}


def test_the_users_checks_come_first_and_ours_only_where_a_platform_runs_the_worker(monkeypatch):
    @fitness.register_fitness_check
    def mine():
        pass

    assert fitness.checks() == [mine]

    monkeypatch.setenv("RUNPOD_WEBHOOK_GET_JOB", "https://api.runpod.ai/v2/ep/job-take/pod?gpu=x")
    monkeypatch.setenv("RUNPOD_SKIP_GPU_CHECK", "true")
    assert [check.__name__ for check in fitness.checks()] == ["mine", "_memory_check", "_disk_check"]

    monkeypatch.setenv("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS", "true")
    assert fitness.checks() == [mine]


def test_too_little_memory_or_disk_is_said_in_numbers(monkeypatch):
    monkeypatch.setenv("RUNPOD_WEBHOOK_GET_JOB", "https://api.runpod.ai/v2/ep/job-take/pod?gpu=x")
    monkeypatch.setenv("RUNPOD_MIN_MEMORY_GB", "1000000")
    monkeypatch.setenv("RUNPOD_MIN_DISK_PERCENT", "100")
    memory, disk, *_ = fitness.checks()

    with pytest.raises(RuntimeError, match="RUNPOD_MIN_MEMORY_GB requires 1e\\+06"):
        memory()
    with pytest.raises(RuntimeError, match=r"RUNPOD_MIN_DISK_PERCENT requires 100"):
        disk()


def test_a_containers_limit_counts_as_memory(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:    8388608 kB\n")

    assert fitness.available_memory(meminfo, tmp_path) == 8 * 2**30

    (tmp_path / "memory.max").write_text(f"{4 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{1 * 2**30}\n")
    assert fitness.available_memory(meminfo, tmp_path) == 3 * 2**30

    (tmp_path / "memory.max").write_text("max\n")
    assert fitness.available_memory(meminfo, tmp_path) == 8 * 2**30


@pytest.mark.parametrize(("failing", "code"), [(False, 0), (True, 1)])
def test_a_handler_may_run_the_checks_itself(failing, code):
    source = f"""
import asyncio
from runpod_worker.serverless.modules.rp_fitness import register_fitness_check, run_fitness_checks
@register_fitness_check
async def check():
    print("checked")
    assert not {failing}, "no GPU"
asyncio.run(run_fitness_checks())
"""
    done = subprocess.run([sys.executable, "-u", "-c", source], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (code, "checked\n")
    assert ("no GPU" in done.stderr) == failing
