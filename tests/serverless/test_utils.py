"""The helpers that handlers import: validator, logger, debugger, cleanup, model cache."""

import json
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from runpod_worker.log import job_id
from runpod_worker.serverless.modules.rp_logger import MAX_MESSAGE_LENGTH, RunPodLogger
from runpod_worker.serverless.utils import rp_cleanup, rp_debugger
from runpod_worker.serverless.utils.rp_debugger import Checkpoints, FunctionTimer, LineTimer, get_debugger_output
from runpod_worker.serverless.utils.rp_model_cache import resolve_model_cache_path_from_hugginface_repository as resolve
from runpod_worker.serverless.utils.rp_validator import validate

# ------------------------------------------------------------------ validator

INT = {"type": int, "required": True}


@pytest.mark.parametrize(
    ("given", "schema", "result"),
    [
        ({"a": 1}, {"a": INT}, {"validated_input": {"a": 1}}),
        ({"a": True}, {"a": INT}, {"validated_input": {"a": True}}),
        ({}, {"a": {"type": int, "required": False, "default": 5}}, {"validated_input": {"a": 5}}),
        ({"a": 1}, {"a": {"type": float, "required": True}}, {"validated_input": {"a": 1.0}}),
        ({"a": "x"}, {"a": {"type": (int, str), "required": True}}, {"validated_input": {"a": "x"}}),
        ({"a": None}, {"a": {"type": str, "required": False, "default": None}}, {"validated_input": {"a": None}}),
        ({"a": 1}, {"a": {"type": int}}, {"validated_input": {"a": 1}}),
        ({"b": 1}, {}, {"errors": ["Unexpected input. b is not a valid input option."]}),
        ({}, {"a": INT}, {"errors": ["a is a required input."]}),
        ({}, {"a": {"type": int, "required": False}}, {"errors": ["Schema error, missing default value for a."]}),
        ({"a": 1}, {"a": {"required": True}}, {"errors": ["Schema error, missing type for a."]}),
        ({"a": 1}, {"a": "not json"}, {"errors": ["Schema error, a is not a dictionary."]}),
        (
            {"a": "x"},
            {"a": INT},
            {"errors": ["a should be <class 'int'> type, not <class 'str'>."]},
        ),
        (
            {"a": 9},
            {"a": {**INT, "constraints": lambda value: value < 5}},
            {"errors": ["a does not meet the constraints."]},
        ),
        (
            {"x": 1},
            {"a": INT, "b": {**INT, "constraints": lambda value: value is not None}},
            {
                "errors": [
                    "Unexpected input. x is not a valid input option.",
                    "a is a required input.",
                    "b is a required input.",
                    "b does not meet the constraints.",
                ]
            },
        ),
    ],
)
def test_inputs_are_checked_and_completed(given, schema, result):
    assert validate(given, schema) == result


def test_rules_may_be_json_and_the_input_is_not_changed():
    given: dict[str, Any] = {}
    schema: dict[str, Any] = {"a": '{"type": "int", "required": false, "default": 1}'}

    assert validate(given, schema) == {"validated_input": {"a": 1}}
    assert given == {}
    assert schema["a"]["default"] == 1


# ------------------------------------------------------------------ logger


@pytest.fixture
def logger(monkeypatch):
    def made(**env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(RunPodLogger, "_instance", None)
        return RunPodLogger()

    return made


def test_lines_on_a_terminal(logger, capsys):
    ours = logger()
    ours.info("plain")
    ours.warn("with an id", "job-1")
    ours.error("older code", job_id="job-2")
    ours.tip("a tip")
    ours.secret("token", "abcdef")
    ours.secret("short", "ab")

    assert capsys.readouterr().out.splitlines() == [
        "INFO   | plain",
        "WARN   | job-1 | with an id",
        "ERROR  | job-2 | older code",
        "TIP    | a tip",
        "INFO   | token: a****f",
        "INFO   | short: **",
    ]


def test_lines_on_the_platform_are_json_and_carry_the_running_job(logger, capsys):
    ours = logger(RUNPOD_ENDPOINT_ID="ep")
    ours.info("outside")
    token = job_id.set("job-1")
    ours.debug("inside")
    job_id.reset(token)

    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"requestId": None, "message": "outside", "level": "INFO"},
        {"requestId": "job-1", "message": "inside", "level": "DEBUG"},
    ]


def test_levels_decide_what_is_written(logger, capsys):
    ours = logger(RUNPOD_DEBUG_LEVEL="warn")
    ours.info("no")
    ours.error("yes")
    ours.level = "NOTSET"
    ours.error("nothing at all")
    ours.set_level(1)
    ours.trace("traced")

    assert capsys.readouterr().out.splitlines() == [
        "ERROR  | yes",
        "INFO   | Log level set to TRACE",
        "TRACE  | traced",
    ]
    with pytest.raises(ValueError, match="Invalid debug level: LOUD"):
        ours.set_level("LOUD")


def test_a_huge_message_loses_its_middle(logger, capsys):
    logger().info("a" * MAX_MESSAGE_LENGTH + "b" * 10)

    out = capsys.readouterr().out
    assert "\n...TRUNCATED 10 CHARACTERS...\n" in out
    assert out.endswith("b" * 10 + "\n")


def test_there_is_one_logger():
    assert RunPodLogger() is RunPodLogger()


# ------------------------------------------------------------------ debugger


@pytest.fixture
def job():
    """Be inside of this job's handler."""

    def enter(name):
        job_id.set(name)
        rp_debugger.clear_debugger_output()

    yield enter
    job_id.set(None)


def test_parts_of_a_handler_are_timed(job):
    job("a")
    checkpoints = Checkpoints()
    checkpoints.add("never stopped")
    checkpoints.start("never stopped")
    with LineTimer("lines"), LineTimer("lines"):
        FunctionTimer(len)([])

    output = get_debugger_output()

    assert [timing["name"] for timing in output["timestamps"]] == ["lines", "lines#2", "len"]
    for timing in output["timestamps"]:
        assert timing["duration_ms"] >= 0
        assert timing["start_utc"].endswith("Z")
        assert "+00:00" not in timing["start_utc"]
    assert set(output["system_info"]) == {"os", "processor", "python_version", "runpod"}
    assert get_debugger_output()["timestamps"] == []


def test_two_jobs_at_once_do_not_meet_and_a_timer_made_at_import_serves_both(job):
    timer = LineTimer("shared")
    timestamps = {}

    def handle(name):
        job_id.set(name)
        with timer:
            Checkpoints().add("once")
        timestamps[name] = get_debugger_output()["timestamps"]

    threads = [threading.Thread(target=handle, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (
        [timing["name"] for timing in timestamps["a"]] == [timing["name"] for timing in timestamps["b"]] == ["shared"]
    )


def test_names_that_are_used_or_unknown_are_told(job):
    job("a")
    checkpoints = Checkpoints()
    checkpoints.add("x")

    with pytest.raises(KeyError, match="already exists"):
        checkpoints.add("x")
    with pytest.raises(KeyError, match="does not exist"):
        checkpoints.start("y")
    with pytest.raises(KeyError, match="has not been started"):
        checkpoints.stop("x")


async def test_with_the_flag_outputs_that_are_objects_carry_the_report(work):
    jobs = {"id": "a", "input": {"x": 1}}, {"id": "b", "input": "text"}
    code = """
        import runpod_worker as runpod
        from runpod_worker.serverless.utils.rp_debugger import LineTimer
        def handler(job):
            with LineTimer("work"):
                return job["input"]
        runpod.serverless.start({"handler": handler})
    """
    seen, _ = await work(textwrap.dedent(code), *jobs, arguments=("--rp_debugger",))

    output = seen.jobs["a"][-1].body["output"]
    assert output["x"] == 1
    assert [timing["name"] for timing in output["rp_debugger"]["timestamps"]] == ["work"]
    assert output["rp_debugger"]["ready_delay_ms"] >= 0
    assert seen.jobs["b"][-1].body == {"output": "text"}


# ------------------------------------------------------------------ the rest


def test_clean_removes_what_jobs_left_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("input_objects", "output_objects", "job_files", "jobs", "mine", "kept"):
        (tmp_path / folder).mkdir()
    (tmp_path / "output.zip").touch()

    rp_cleanup.clean(["mine"])
    rp_cleanup.clean()

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("repository", "path"),
    [
        ("org/name", "/runpod/cache/org/name/main"),
        ("org/name:rev", "/runpod/cache/org/name/rev"),
        ("name:a", "/runpod/cache/name/a"),
        (":rev", None),
        ("", None),
    ],
)
def test_the_path_of_a_cached_model(repository, path):
    assert resolve(repository) == path


def test_the_face_alone_loads_no_http_client_and_no_boto3():
    code = (
        "import sys, runpod_worker.serverless; print(*[n for n in ('aiohttp', 'boto3', 'torch') if n in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"
