"""The Dockerfile that worker.yaml becomes."""

from pathlib import Path

import pytest

from runpod_worker.build import default_image_name, make_plan, render_dockerfile
from runpod_worker.core.errors import BuildError
from runpod_worker.workerfile import Model, WorkerFile

BARE = """\
# Made from worker.yaml by `runpod-worker build`; commit it if you like. Without this line it is yours, and build does not change it.
ARG BASE=runpod-worker-base:latest
FROM ${BASE}

# the handler and the files beside it (see .dockerignore)
COPY --chown=${WORKER_UID} [".", "./"]
CMD ["runpod-worker", "run", "handler.py"]
"""  # noqa: E501


def made(file: WorkerFile, folder: Path) -> str:
    return render_dockerfile(make_plan(file, folder))


def test_a_folder_with_nothing_but_a_handler_needs_four_lines(folder: Path) -> None:
    assert made(WorkerFile(), folder) == BARE


def test_what_changes_least_comes_first(folder: Path) -> None:
    file = WorkerFile(
        python="3.12", system=("ffmpeg",), requirements=("pillow",), models=(Model(id="org/name", bake=True),)
    )

    text = made(file, folder)

    marks = ["3.12", "apt-get", "pip install --no-cache-dir pillow", "hf download org/name", "COPY", "CMD"]
    assert sorted(marks, key=text.index) == marks


def test_packages_and_patterns_reach_the_shell_as_they_were_written(folder: Path) -> None:
    file = WorkerFile(
        requirements=("torch>=2.6", "a b; rm -rf /"), models=(Model(id="o/n", files=("*.bin",), bake=True),)
    )

    text = made(file, folder)

    assert "RUN pip install --no-cache-dir 'torch>=2.6' 'a b; rm -rf /'\n" in text
    assert "hf download o/n --include '*.bin'\n" in text


def test_a_requirements_file_is_installed_before_the_handler_is_copied(folder: Path) -> None:
    (folder / "requirements.txt").write_text("pillow\n")

    text = made(WorkerFile(), folder)

    assert 'COPY --chown=${WORKER_UID} ["requirements.txt", "/tmp/requirements.txt"]' in text
    assert text.index("requirements.txt") < text.index('[".", "./"]')


def test_system_packages_are_installed_as_root_and_the_worker_is_not(folder: Path) -> None:
    lines = made(WorkerFile(system=("ffmpeg", "libgl1")), folder).splitlines()

    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER root", "USER ${WORKER_UID}"]
    assert " && apt-get install -y -qq --no-install-recommends ffmpeg libgl1 \\" in lines


def test_baked_models_lie_where_no_volume_hides_them_and_need_no_network(folder: Path) -> None:
    text = made(WorkerFile(models=(Model(id="o/n", revision="v1", bake=True),)), folder)

    assert "ENV HF_HUB_CACHE=/opt/models/hub HUGGINGFACE_HUB_CACHE=/opt/models/hub" in text
    assert "hf download o/n --revision v1" in text
    assert "ENV HF_HUB_OFFLINE=1" in text


def test_a_model_to_fetch_later_keeps_the_network_on(folder: Path) -> None:
    text = made(WorkerFile(models=(Model(id="o/baked", bake=True), Model(id="o/later"))), folder)

    assert "o/later" not in text
    assert "OFFLINE" not in text


def test_the_hubs_token_is_a_build_secret_and_stays_in_no_layer(folder: Path) -> None:
    text = made(WorkerFile(models=(Model(id="o/n", bake=True),)), folder)

    assert "RUN --mount=type=secret,id=HF_TOKEN" in text
    assert "ENV HF_TOKEN" not in text
    assert "ARG HF_TOKEN" not in text


def test_a_model_folder_has_a_layer_of_its_own_and_is_copied_once(folder: Path) -> None:
    for name in ("weights", "lib", ".git", "__pycache__"):
        (folder / name).mkdir()
    (folder / "Dockerfile").write_text("")

    copies = [line for line in made(WorkerFile(models=(Model(id="./weights"),)), folder).splitlines() if "COPY" in line]

    assert copies == [
        'COPY --chown=${WORKER_UID} ["weights/", "weights/"]',
        'COPY --chown=${WORKER_UID} ["handler.py", "./"]',
        'COPY --chown=${WORKER_UID} ["lib/", "lib/"]',
    ]


@pytest.mark.parametrize(
    ("file", "base"),
    [
        (WorkerFile(), "runpod-worker-base:latest"),
        (WorkerFile(python="3.12"), "runpod-worker-base:3.12"),
        (WorkerFile(python="3.12", base="mine:1"), "mine:1"),
    ],
)
def test_the_base_is_the_files_or_ours_for_its_python(folder: Path, file: WorkerFile, base: str) -> None:
    assert f"ARG BASE={base}\n" in made(file, folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (WorkerFile(handler="src/main.py"), "handler: there is no file src/main.py in "),
        (WorkerFile(requirements="reqs.txt"), "requirements: there is no file reqs.txt in "),
        (WorkerFile(requirements="../reqs.txt"), "requirements: ../reqs.txt is outside "),
        (WorkerFile(models=(Model(id="./nothing"),)), r"models\[\].id: there is no folder ./nothing in "),
        (WorkerFile(env={"HF_TOKEN": "x"}), "env.HF_TOKEN: looks like a secret"),
        (WorkerFile(env={"db_password": "x"}), "env.db_password: looks like a secret"),
    ],
)
def test_what_cannot_be_built_is_an_error_before_a_builder_runs(folder: Path, file: WorkerFile, message: str) -> None:
    with pytest.raises(BuildError, match=f"^{message}"):
        make_plan(file, folder)


def test_a_variable_that_only_sounds_like_a_secret_is_none(folder: Path) -> None:
    file = WorkerFile(env={"TOKENIZERS_PARALLELISM": "false", "MONKEY": "1"})

    assert make_plan(file, folder) == make_plan(WorkerFile(), folder)


@pytest.mark.parametrize(("endpoint", "name"), [("SDXL_v1", "sdxl-v1"), (None, "my-worker"), ("---", "worker")])
def test_the_image_is_named_for_the_endpoint_or_the_folder(folder: Path, endpoint: str | None, name: str) -> None:
    assert default_image_name(WorkerFile(endpoint=endpoint), folder) == name
