"""The service's settings: old names, and what reading them loads."""

import subprocess
import sys

import pytest

from runpod_worker.config import load
from runpod_worker.service.settings import ServiceSettings, WebhookSettings


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("RUNPOD_SERVICE_TAKE_HOLD", "take_poll_timeout_s"),
        ("RUNPOD_SERVICE_RUNSYNC_HOLD", "runsync_poll_timeout_s"),
        ("RUNPOD_SERVICE_STREAM_HOLD", "stream_poll_timeout_s"),
        ("RUNPOD_SERVICE_CANCEL_HOLD", "cancel_poll_timeout_s"),
        ("RUNPOD_SERVICE_SILENCE", "keepalive_s"),
        ("RUNPOD_SERVICE_RUN_LIMIT", "max_run_bytes"),
        ("RUNPOD_SERVICE_RUNSYNC_LIMIT", "max_runsync_bytes"),
        ("RUNPOD_SERVICE_RESULT_LIMIT", "max_result_bytes"),
        ("RUNPOD_SERVICE_FILE_LIMIT", "max_file_bytes"),
        ("RUNPOD_SERVICE_BACKLOG", "max_backlog_jobs"),
    ],
)
def test_variables_of_release_0_1_still_work(variable: str, name: str) -> None:
    assert getattr(load(ServiceSettings, env={variable: "7"}), name) == 7


def test_names_of_release_0_1_still_work_in_code() -> None:
    settings = load(WebhookSettings, {"at_once": 5, "at_once_per_receiver": 2}, env={})

    assert (settings.max_concurrent, settings.max_concurrent_per_receiver) == (5, 2)
    assert load(ServiceSettings, {"take_hold_s": 3.0}, env={}).take_poll_timeout_s == 3


def test_the_wire_and_the_settings_load_no_http_library() -> None:
    code = "import sys, runpod_worker.service.http.wire; sys.exit('aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
