"""`runpod-worker run`, read without the whole command line, and what is left to it."""

import subprocess
import sys
from pathlib import Path

import pytest

from runpod_worker.cli import quick, run


@pytest.fixture
def handler(tmp_path: Path) -> str:
    file = tmp_path / "handler.py"
    file.write_text("")
    return str(file)


def test_what_an_image_says_is_read(handler: str) -> None:
    order = quick.read(["run", handler, "--url", "http://x/v2/e", "--grace=5", "--concurrency", "2", "--as-runpod"])

    assert order == (Path(handler), {"url": "http://x/v2/e", "grace_s": 5.0, "concurrency": 2}, True)


@pytest.mark.parametrize(
    "more",
    [["--help"], ["--gr", "5"], ["--grace"], ["--grace", "soon"], ["--grace", "-1"], ["--concurrency", "0"], ["b.py"]],
)
def test_anything_else_is_left_to_the_whole_command_line(handler: str, more: list[str]) -> None:
    assert quick.read(["run", handler, *more]) is None


def test_so_are_other_commands_and_files_that_are_not_there(handler: str) -> None:
    assert quick.read(["test", handler]) is None
    assert quick.read(["--debug", "run", handler]) is None
    assert quick.read(["run", f"{handler}.not"]) is None
    assert quick.read([]) is None


def test_it_knows_every_option_of_the_command() -> None:
    parameters = set(run.run.__annotations__) - {"handler", "return"}

    assert {f"--{name.replace('_', '-')}" for name in parameters} == {*quick.OPTIONS, "--as-runpod"}


def test_the_quick_way_imports_no_command_line() -> None:
    source = "import sys, runpod_worker.cli.quick, runpod_worker.cli.work; print('typer' in sys.modules)"

    assert (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_an_error_is_one_line(handler: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runpod_worker", "run", handler], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: no job service to take jobs from")
    assert done.stderr.count("\n") == 1
