"""`runpod-worker build`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from runpod_worker.build import MADE
from runpod_worker.cli.build import build

Install = Callable[[str, str], Path]

BUILDER = """
case "$1" in
  image) [ "$3" = runpod-worker-base:latest ];;
  history) printf '1048576\\tCOPY . .\\n';;
esac
"""


def command(*words: str) -> Result:
    app = typer.Typer()
    app.command()(build)
    return CliRunner().invoke(app, list(words))


def test_an_image_is_built_and_its_layers_are_weighed(install: Install, folder: Path) -> None:
    calls = install("docker", BUILDER)

    result = command(str(folder))

    assert result.exit_code == 0, result.output
    assert f"docker build -f {folder}/Dockerfile -t my-worker {folder}" in calls.read_text().splitlines()
    assert "1.0 MiB  COPY . ." in result.output
    assert result.output.endswith("built my-worker\n")


def test_arguments_after_two_dashes_go_to_the_builder(install: Install, folder: Path) -> None:
    calls = install("docker", BUILDER)

    command(str(folder), "--tag", "x:1", "--base", "mine", "--", "--pull", "--network=host")

    assert f"-t x:1 --build-arg BASE=mine --pull --network=host {folder}" in calls.read_text()


def test_without_a_builder_the_dockerfile_is_still_written(install: Install, folder: Path) -> None:
    result = command(str(folder))

    assert result.exit_code == 1
    assert "error: no program to build images: install Docker" in result.output
    assert (folder / "Dockerfile").read_text().startswith(MADE)


def test_no_build_needs_no_builder(install: Install, folder: Path) -> None:
    assert command(str(folder), "--no-build").exit_code == 0


def test_a_missing_base_is_an_error_with_the_command_that_makes_it(install: Install, folder: Path) -> None:
    install("docker", BUILDER)
    (folder / "worker.yaml").write_text("python: 3.12")

    result = command(str(folder))

    assert result.exit_code == 1
    assert "docker build -f Dockerfile.base -t runpod-worker-base:3.12 --build-arg PYTHON=3.12 ." in result.output


def test_a_dockerfile_written_by_hand_is_built_unchanged(install: Install, folder: Path) -> None:
    install("docker", BUILDER)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "handler.py").rename(folder / "anything.py")

    result = command(str(folder))

    assert result.output.startswith("using your own ")
    assert (folder / "Dockerfile").read_text() == "FROM scratch\n"


def test_our_dockerfile_is_written_anew_when_worker_yaml_changes(install: Install, folder: Path) -> None:
    command(str(folder), "--no-build")
    (folder / "worker.yaml").write_text("system: [ffmpeg]")

    command(str(folder), "--no-build")

    assert "ffmpeg" in (folder / "Dockerfile").read_text()


@pytest.mark.parametrize("own", [None, "# mine\n"])
def test_a_dockerignore_keeps_secrets_out_unless_there_is_one(install: Install, folder: Path, own: str | None) -> None:
    if own:
        (folder / ".dockerignore").write_text(own)

    command(str(folder), "--no-build")

    text = (folder / ".dockerignore").read_text()
    assert text == own if own else ".*\n" in text


def test_the_hubs_mirror_is_the_builds_too(install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = install("docker", BUILDER)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")

    command(str(folder))

    assert "--build-arg HF_ENDPOINT=http://mirror.example" in calls.read_text()


def test_the_hubs_token_goes_as_a_secret_and_not_as_a_word(
    install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install("docker", BUILDER)
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")

    command(str(folder))

    assert "--secret id=HF_TOKEN,env=HF_TOKEN" in calls.read_text()
    assert "hf_very_secret" not in calls.read_text()


@pytest.mark.parametrize("option", ["--builder", "--engine"])
def test_the_builder_is_chosen_by_its_name_and_by_the_old_option(install: Install, folder: Path, option: str) -> None:
    for name in ("docker", "podman"):
        install(name, BUILDER)

    result = command(str(folder), option, "podman")

    assert "building my-worker with podman" in result.output
