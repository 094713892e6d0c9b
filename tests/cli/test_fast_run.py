"""`runpod-worker run` without the parser, and the command lines that it leaves to the parser."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.cli import fast_run
from runpod_worker.config import WorkerSettings, options


@pytest.fixture
def handler(tmp_path: Path) -> str:
    file = tmp_path / "handler.py"
    file.write_text("")
    return str(file)


def test_the_command_of_an_image_is_read(handler: str) -> None:
    arguments = fast_run.read(
        ["run", handler, "--url", "http://x/v2/e", "--grace=5", "--concurrency", "2", "--as-runpod"]
    )

    assert arguments == (Path(handler), {"url": "http://x/v2/e", "grace_s": 5.0, "concurrency": 2}, True, ())


def test_arguments_after_two_dashes_are_the_handlers(handler: str) -> None:
    arguments = fast_run.read(["run", handler, "--grace=5", "--", "--generator", "--grace", "x"])

    assert arguments is not None
    assert (arguments.given, arguments.arguments) == ({"grace_s": 5.0}, ("--generator", "--grace", "x"))


@pytest.mark.parametrize(
    "more",
    [["--help"], ["--gr", "5"], ["--grace"], ["--grace", "soon"], ["--grace", "-1"], ["--concurrency", "0"], ["b.py"]],
)
def test_anything_else_is_left_to_the_parser(handler: str, more: list[str]) -> None:
    assert fast_run.read(["run", handler, *more]) is None


def test_so_are_other_commands_and_files_that_are_not_there(handler: str) -> None:
    assert fast_run.read(["test", handler]) is None
    assert fast_run.read(["--debug", "run", handler]) is None
    assert fast_run.read(["run", f"{handler}.not"]) is None
    assert fast_run.read([]) is None


def test_both_ways_have_the_options_of_the_settings() -> None:
    command = [sys.executable, "-m", "runpod_worker", "run", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    flags = {option.flag for option in options(WorkerSettings)}

    assert flags == {"--url", "--key", "--worker-id", "--device", "--concurrency", "--grace", "--log-level"}
    assert {*re.findall(r"^ +(--[a-z-]+)", text, re.MULTILINE)} == flags | {"--as-runpod", "--help"}


@pytest.mark.parametrize("more", [["--grace", "-1"], ["--concurrency", "0"], ["--grace", "soon"]])
def test_the_parser_says_what_is_wrong(handler: str, more: list[str]) -> None:
    command = [sys.executable, "-m", "runpod_worker", "run", handler, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert f"Invalid value for '{more[0]}'" in done.stderr


def test_the_fast_way_imports_no_parser() -> None:
    source = "import sys, runpod_worker.cli.fast_run, runpod_worker.cli.worker; print('typer' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_an_error_is_one_line(handler: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runpod_worker", "run", handler], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: no job service to take jobs from")
    assert done.stderr.count("\n") == 1


def test_an_unknown_log_level_is_one_line(handler: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fast_run.run(fast_run.Arguments(Path(handler), {"url": "http://x/v2/e", "log_level": "LOUD"}, False)) == 2

    assert capsys.readouterr().err == (
        "error: --log-level: expected ERROR, WARN, INFO, DEBUG, TRACE or NOTSET, got 'LOUD'\n"
    )
