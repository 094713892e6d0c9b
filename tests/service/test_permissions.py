"""Other users of the machine can read nothing of a service, whichever command made its files."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from runpod_worker.service.files import FolderFiles
from runpod_worker.service.journal.database import open_file
from runpod_worker.service.keys import DATABASE, KeyFile


def make_by_keys(data: Path) -> None:
    with closing(KeyFile(data / DATABASE)) as file:
        file.ensure_account("ann")
        check(data)


def make_by_service(data: Path) -> None:
    with ExitStack() as release:
        open_file(data / DATABASE, 1, release)
        FolderFiles(data / "files")
        check(data)


def check(data: Path) -> None:
    paths = list(data.rglob("*"))
    assert {path.name for path in paths} >= {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
    assert [str(path) for path in paths if path.stat().st_mode & 0o077] == []


@pytest.fixture(params=[0o022, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("make", [make_by_keys, make_by_service])
@pytest.mark.parametrize("exists", [False, True])
def test_folder_and_files_are_the_users_own(tmp_path: Path, make: Callable[[Path], None], exists: bool) -> None:
    data = tmp_path / "data"
    if exists:
        data.mkdir()

    make(data)

    assert exists or data.stat().st_mode & 0o077 == 0
