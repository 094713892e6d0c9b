"""Runs the code of the README unchanged, except for the port."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hello() -> Iterator[str]:
    """host:port of `runpod-worker dev` with the hello template."""
    handler = str(ROOT / "templates/hello/handler.py")
    command = [sys.executable, "-u", "-m", "runpod_worker", "dev", handler, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    match = re.search(r"http://([^/]+)/v2/dev", process.stdout.readline())
    assert match
    yield match.group(1)
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()


@pytest.mark.xdist_group("stable_diffusion")  # it imports diffusers
def test_the_handler_declares_a_worker_with_a_model() -> None:
    [handler, *_] = blocks("python")
    space: dict[str, Any] = {"__name__": "readme"}

    exec(compile(handler, "README.md", "exec"), space)

    declared = space["worker"].declaration()
    assert declared.model is not None
    assert declared.handler is not None


def test_the_client_lines_get_their_answer(hello: str) -> None:
    [_, client, *_] = blocks("python")
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(compile(client.replace("127.0.0.1:8000", hello), "README.md", "exec"), {})

    assert printed.getvalue() == "{'greeting': 'Hello, World!'}\n"


def test_the_shell_lines_get_their_answer(hello: str) -> None:
    [calls] = [block for block in blocks("sh") if "curl" in block]
    program = f"{shlex.quote(sys.executable)} -m runpod_worker"
    for line in calls.replace("127.0.0.1:8000", hello).replace("runpod-worker", program).splitlines():
        answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=90, check=True)
        assert "Hello, World!" in answer.stdout


def test_every_page_and_picture_it_names_is_there() -> None:
    named = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in target]

    assert named
    assert [target for target in named if not (ROOT / target).exists()] == []
