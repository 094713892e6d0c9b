"""Reads Dockerfile.base and the Dockerfiles based on it; `make image` runs them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = (ROOT / "Dockerfile.base").read_text(encoding="utf-8")
BUILT_ON_IT = sorted([*ROOT.glob("templates/*/Dockerfile"), *ROOT.glob("examples/*/Dockerfile")])


def instructions(text: str) -> list[str]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def test_process_1_is_tini_and_it_runs_the_worker() -> None:
    assert instructions(BASE)[-2:] == ['ENTRYPOINT ["tini", "--"]', 'CMD ["runpod-worker", "run", "handler.py"]']


def test_the_worker_is_not_root() -> None:
    users = [line for line in instructions(BASE) if line.startswith("USER")]

    assert users == ["USER ${WORKER_UID}"]
    assert "ARG UID=1000" in BASE


def test_models_are_kept_where_the_platform_keeps_them() -> None:
    cache = "/runpod-volume/huggingface-cache/hub"

    assert f"HF_HUB_CACHE={cache}" in BASE
    assert f"HUGGINGFACE_HUB_CACHE={cache}" in BASE


def test_layers_go_from_what_changes_least_to_what_changes_most() -> None:
    final = BASE.split("FROM ${FROM}\n")[-1]
    marks = ["apt-get install", "venv /opt/venv", '"torch==${TORCH}" safetensors', "/requirements.txt", "/wheels"]

    assert sorted(marks, key=final.index) == marks


def test_no_secret_is_an_argument_or_a_variable() -> None:
    names = re.findall(r"^(?:ARG|ENV) (\w+)", BASE, re.MULTILINE)

    assert not [name for name in names if re.search(r"KEY|TOKEN|SECRET|PASSWORD", name)]


def test_its_torch_is_the_one_the_project_is_tried_with() -> None:
    tried = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    assert tried
    assert f"ARG TORCH={tried[1]}\n" in BASE


def test_the_build_sees_all_that_the_wheel_is_made_of_and_no_more() -> None:
    seen = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    printed = project["project"]
    folders = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]

    assert seen == {"pyproject.toml", printed["readme"], *printed["license-files"], *folders}


@pytest.mark.parametrize("path", BUILT_ON_IT, ids=lambda path: path.parent.name)
def test_every_example_and_template_builds_on_it(path: Path) -> None:
    lines = instructions(path.read_text(encoding="utf-8"))

    assert lines[:2] == ["ARG BASE=runpod-worker-base", "FROM ${BASE}"]
    assert not [line for line in lines if line.startswith(("USER root", "ENTRYPOINT"))]
    assert {"requirements.txt", "handler.py"} <= set(" ".join(lines).split())
