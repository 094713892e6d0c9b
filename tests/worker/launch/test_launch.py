"""Starting agent and executor: cost, imports and settings."""

import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.config import worker_settings
from runpod_worker.worker.launch.launch import executor_env


def run(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


AGENT = "import runpod_worker.worker.launch.launch, runpod_worker.worker.agent.agent, runpod_worker.worker.link.http, "


NEVER = ["torch", "aiohttp", "sqlite3", "redis", "typer", "yaml", "runpod_worker.service", "runpod_worker.client"]


def test_the_agent_imports_neither_torch_nor_the_service_nor_what_it_does_not_need() -> None:
    loaded = run(AGENT + f"runpod_worker.worker.link.transport, sys\nprint([n for n in {NEVER} if n in sys.modules])")

    assert loaded.strip() == "[]"


def test_the_agent_fits_into_40_megabytes() -> None:
    kilobytes = run(
        AGENT
        + "runpod_worker.worker.link.transport, asyncio, pathlib\n"
        + "status = pathlib.Path('/proc/self/status').read_text()\n"
        + "print(status.partition('VmRSS:')[2].split()[0])"
    )

    assert int(kilobytes) < 40 * 1024


def test_the_agents_imports_take_less_than_350_ms_of_a_processor() -> None:
    seconds = run(AGENT + "runpod_worker.worker.link.transport, asyncio, time\nprint(time.process_time())")

    assert float(seconds) < 0.35


IN_EXECUTOR = {"RUNPOD_WORKER_CHANNEL_FD": "5"}


def test_an_executor_has_its_agents_settings_but_for_the_key() -> None:
    given = {"url": "http://h/v2/e", "api_key": "secret", "grace_s": 7, "concurrency": 3, "spool_dir": Path("/s")}
    settings = worker_settings(given, env={})

    env = executor_env(settings)

    assert "secret" not in str(env)
    assert worker_settings(env=env | IN_EXECUTOR | {"RUNPOD_WORKER_GRACE": "1"}) == worker_settings(
        {**given, "api_key": None, "worker_id": settings.worker_id}, env={}
    )


def test_what_the_handlers_code_gives_wins_over_the_agents_settings() -> None:
    env = executor_env(worker_settings({"grace_s": 7, "stop_grace_s": 8}, env={})) | IN_EXECUTOR

    settings = worker_settings({"grace_s": 1, "stop_grace_s": None}, env=env)

    assert (settings.grace_s, settings.stop_grace_s) == (1, 8)


def test_a_process_that_inherits_the_variable_without_a_channel_is_no_executor() -> None:
    assert worker_settings(env=executor_env(worker_settings({"grace_s": 7}, env={}))).grace_s == 30


@pytest.mark.parametrize(("device", "visible"), [("cuda:1", "1"), ("cuda", None), ("cpu", None)])
def test_an_executor_sees_the_one_device_of_its_worker_as_the_first(device: str, visible: str | None) -> None:
    env = executor_env(worker_settings({"device": device}, env={}))

    assert env.get("CUDA_VISIBLE_DEVICES") == visible
    assert worker_settings(env=env | IN_EXECUTOR).device == device.partition(":")[0]


def test_handlers_read_the_workers_id_and_level_where_runpod_has_them() -> None:
    env = executor_env(worker_settings({"worker_id": "w1", "log_level": "WARN"}, env={}))

    assert (env["RUNPOD_POD_ID"], env["RUNPOD_LOG_LEVEL"], env["PYTHONUNBUFFERED"]) == ("w1", "WARN", "1")


def test_handlers_find_the_platforms_variables_where_the_url_names_the_service() -> None:
    env = executor_env(worker_settings({"url": "http://h/v2/ep/", "worker_id": "w"}, env={}))

    assert env["RUNPOD_ENDPOINT_ID"] == "ep"
    assert env["RUNPOD_WEBHOOK_GET_JOB"] == "http://h/v2/ep/job-take/w?gpu=cpu"
    assert env["RUNPOD_WEBHOOK_POST_OUTPUT"] == "http://h/v2/ep/job-done/w/$ID?gpu=cpu"
    assert env["RUNPOD_WEBHOOK_POST_STREAM"] == "http://h/v2/ep/job-stream/w/$ID?gpu=cpu"
    assert env["RUNPOD_WEBHOOK_PING"] == "http://h/v2/ep/ping/w?gpu=cpu"
    assert worker_settings(env=env | IN_EXECUTOR).endpoint_id is None, "its log lines stay text"
