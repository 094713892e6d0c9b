"""The origin of a setting's value, and errors for wrong values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from runpod_worker.config import Old, WorkerSettings, client_settings, load, loading, resolve, setting, worker_settings
from runpod_worker.core.errors import SettingsError


def test_command_line_wins_over_environment_over_file_over_default() -> None:
    env, file = {"RUNPOD_WORKER_GRACE": "2"}, {"timeouts": {"grace": 3}}

    assert load(WorkerSettings, {"grace_s": 1}, env=env, file=file).grace_s == 1
    assert load(WorkerSettings, env=env, file=file).grace_s == 2
    assert load(WorkerSettings, env={}, file=file).grace_s == 3
    assert load(WorkerSettings, env={}).grace_s == 30


def test_each_value_knows_where_it_came_from() -> None:
    origins = {
        loaded.name: loaded.origin for loaded in resolve(WorkerSettings, {"device": "cpu"}, env={"RUNPOD_POD_ID": "p"})
    }

    assert origins["device"] == "command line"
    assert origins["worker_id"] == "environment RUNPOD_POD_ID"
    assert origins["grace_s"] == "default"


def test_milliseconds_of_the_platform_become_seconds() -> None:
    assert load(WorkerSettings, env={"RUNPOD_PING_INTERVAL": "2500"}).ping_interval_s == 2.5


def test_a_wrong_value_is_named_with_its_type_and_what_was_expected() -> None:
    with pytest.raises(SettingsError, match=r"RUNPOD_WORKER_GRACE: expected a number from 0 to \d+, got 'soon'"):
        load(WorkerSettings, env={"RUNPOD_WORKER_GRACE": "soon"})


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="graze_s is not a setting"):
        load(WorkerSettings, {"graze_s": 1}, env={})


def test_one_url_gives_all_worker_urls() -> None:
    settings = worker_settings({"url": "http://h:1/v2/ep/", "worker_id": "w 1", "gpu": "RTX 4090"}, env={})

    assert settings.take_url == "http://h:1/v2/ep/job-take/w%201?gpu=RTX+4090"
    assert settings.done_url == "http://h:1/v2/ep/job-done/w%201/$ID?gpu=RTX+4090"
    assert settings.stream_url == "http://h:1/v2/ep/job-stream/w%201/$ID?gpu=RTX+4090"
    assert settings.ping_url == "http://h:1/v2/ep/ping/w%201?gpu=RTX+4090"


@pytest.mark.parametrize("url", ["h:1/v2/ep", "ftp://h/v2/ep", "http://h/v2", "http://h/v2/ep/run"])
def test_a_url_that_names_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"expected http\(s\)://host"):
        worker_settings({"url": url}, env={})


def test_without_a_service_the_worker_is_local() -> None:
    assert not worker_settings(env={}).deployed
    assert worker_settings(env={"RUNPOD_WEBHOOK_GET_JOB": "http://h/job-take/x?gpu="}).deployed


def test_two_workers_never_share_an_id() -> None:
    assert worker_settings(env={}).worker_id != worker_settings(env={}).worker_id


def test_the_client_finds_the_platform_by_default() -> None:
    assert client_settings(env={}).base_url == "https://api.runpod.ai/v2"


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """One setting whose three names changed."""

    hold_s: float = setting(
        1.0, "NEW_HOLD", text="t", file="hold", scale=0.5, old=Old(name="keep_s", env="OLD_HOLD", file="old.hold")
    )


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    monkeypatch.setattr(loading, "_WARNED", set())
    return lambda: [(r.old, r.new) for r in caplog.records if r.message == "setting.renamed"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "env", "file", "value", "warning"),
    [
        ({"keep_s": 3}, {}, {}, 3.0, ("keep_s", "hold_s")),
        ({}, {"OLD_HOLD": "3"}, {}, 1.5, ("OLD_HOLD", "NEW_HOLD")),
        ({}, {}, {"old": {"hold": 3}}, 3.0, ("worker.yaml old.hold", "worker.yaml hold")),
    ],
)
def test_an_old_name_works_and_the_log_says_the_new_one_once(
    given: Any, env: Any, file: Any, value: float, warning: tuple[str, str], warned: Any
) -> None:
    values = [load(Renamed, given, env=env, file=file).hold_s for _ in range(2)]

    assert values == [value, value]
    assert warned() == [warning]


def test_a_new_name_wins_over_an_old_one_without_a_warning(warned: Any) -> None:
    given, env, file = {"hold_s": 3, "keep_s": 4}, {"NEW_HOLD": "5", "OLD_HOLD": "6"}, {"hold": 7, "old": {"hold": 8}}

    assert load(Renamed, given, env=env, file=file).hold_s == 3
    assert load(Renamed, env=env, file=file).hold_s == 2.5
    assert load(Renamed, env={}, file=file).hold_s == 7
    assert warned() == []


def test_the_names_of_0_1_still_set_the_prefetch() -> None:
    env = {"RUNPOD_WORKER_AHEAD": "0.25", "RUNPOD_WORKER_AHEAD_JOBS": "7"}

    assert load(WorkerSettings, env=env).prefetch_s == 0.25
    assert load(WorkerSettings, env=env).prefetch_jobs == 7
    assert load(WorkerSettings, env={}, file={"ahead": 2.0}).prefetch_s == 2.0


def test_an_unknown_variable_is_named_with_the_nearest_one_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "_WARNED", set())
    env = {
        "RUNPOD_WORKER_GRASE": "5",
        "RUNPOD_WORKER_AHEAD": "1",
        "RUNPOD_WORKER_DOWNLOADS": "2",
        "RUNPOD_WORKERX": "1",
    }

    for _ in range(2):
        worker_settings(env=env)

    unknown: list[Any] = [record for record in caplog.records if record.message == "setting.unknown"]
    assert [(record.variable, record.nearest) for record in unknown] == [("RUNPOD_WORKER_GRASE", "RUNPOD_WORKER_GRACE")]


def test_an_executor_warns_of_no_variable_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "_WARNED", set())

    worker_settings(env={"RUNPOD_WORKER_GRASE": "5", "RUNPOD_WORKER_CHANNEL_FD": "3", "RUNPOD_WORKER_SETTINGS": "{}"})

    assert not [record for record in caplog.records if record.message == "setting.unknown"]
