import os
import subprocess
import sys
import tempfile
import threading

import pytest

from runpod_worker.worker.executor.files.scratch import PREFIX, Scratch, remove, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folders_are_private_and_go_with_the_process(temporary):
    scratch = Scratch()
    first, second = scratch.new_folder(), scratch.new_folder()
    first.mkdir()
    (first / "file").write_text("x")

    assert first != second
    assert first.parent.stat().st_mode & 0o777 == 0o700
    scratch.close()
    assert list(temporary.iterdir()) == []


def test_a_process_that_forgets_to_close_leaves_nothing(temporary):
    module = "runpod_worker.worker.executor.files.scratch"
    code = f"from {module} import Scratch\nscratch = Scratch()\nscratch.new_folder().mkdir()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TMPDIR": str(temporary)})

    assert list(temporary.iterdir()) == []


def test_a_sweep_leaves_what_is_in_use_and_what_is_not_ours(temporary):
    scratch = Scratch()
    scratch.new_folder().mkdir()
    (temporary / f"{PREFIX}left" / "0").mkdir(parents=True)
    (temporary / "elsewhere").mkdir()
    (temporary / f"{PREFIX}link").symlink_to(temporary / "elsewhere")

    sweep()

    assert {path.name.removeprefix(PREFIX) for path in temporary.iterdir()} >= {"elsewhere", "link"}
    assert not (temporary / f"{PREFIX}left").exists()
    assert len(list(temporary.iterdir())) == 3
    scratch.close()


def test_a_folder_is_gone_even_when_several_remove_parts_of_it(temporary):
    for number in range(300):
        (temporary / "root" / str(number) / "0").mkdir(parents=True)
    parts = [threading.Thread(target=remove, args=[temporary / "root" / str(number)]) for number in range(300)]

    for thread in parts:
        thread.start()
    remove(temporary / "root")
    for thread in parts:
        thread.join()

    assert not (temporary / "root").exists()
