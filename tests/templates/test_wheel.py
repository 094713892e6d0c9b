"""What people install: from the built wheel, with no checkout in sight, a folder is made and passes its own test."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runpod_worker.cli.init import ORDER

CHECKOUT = Path(__file__).parents[2]
BUILD = "import sys, hatchling.build as backend; print(backend.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def runpod_worker(installed: Path, cwd: Path, *words: str) -> str:
    """Run the command as the wheel has it; the package of the wheel comes before that of the checkout."""
    environment = dict(os.environ) | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "runpod_worker", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_carries_every_template_whole(installed: Path) -> None:
    carried = installed / "runpod_worker" / "templates"

    assert sorted(folder.name for folder in carried.iterdir()) == sorted(ORDER)
    for template in ORDER:
        kept = {path.name for path in (CHECKOUT / "templates" / template).iterdir() if path.is_file()}
        assert {path.name for path in (carried / template).iterdir()} == kept


@pytest.mark.slow
@pytest.mark.parametrize("template", ["hello", "stream", "async-batch"])
def test_from_an_empty_folder_to_a_handler_that_passes_its_test(installed: Path, tmp_path: Path, template: str) -> None:
    runpod_worker(installed, tmp_path, "init", template, "mine")

    assert "ok" in runpod_worker(installed, tmp_path / "mine", "test", "handler.py")


@pytest.mark.slow
def test_it_is_the_wheel_that_ran(installed: Path, tmp_path: Path) -> None:
    code = "import runpod_worker.cli.init as init; print(init.templates_folder())"
    environment = dict(os.environ) | {"PYTHONPATH": str(installed)}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert Path(done.stdout.strip()) == installed / "runpod_worker" / "templates"
