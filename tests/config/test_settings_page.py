"""docs/settings.md has every setting, as in the code."""

import dataclasses
from pathlib import Path

import msgspec

from runpod_worker.cli.config import groups
from runpod_worker.config import WorkerSettings, rows
from runpod_worker.workerfile import WorkerFile
from tools.docs import SERVICE, settings_page

GROUPS = groups() | SERVICE
PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_committed_page_is_the_codes() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run: make docs"


def test_every_setting_every_variable_and_every_key_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    settings = [row for cls in GROUPS.values() for row in rows(cls)]
    names = [field.name for cls in GROUPS.values() for field in dataclasses.fields(cls)]
    variables = [variable for row in settings for variable in row[1].split(", ") if variable]

    missing = [name for name in (*names, *variables, *WorkerFile.__struct_fields__) if f"`{name}`" not in page]

    assert not missing


def test_every_setting_says_what_it_is() -> None:
    assert {"worker", "client"} <= groups().keys()
    assert not [name for cls in GROUPS.values() for name, *_, text in rows(cls) if not text]


def test_every_name_in_worker_yaml_that_a_setting_reads_is_a_key_there() -> None:
    known = msgspec.to_builtins(WorkerFile())

    for _, _, key, *_ in rows(WorkerSettings):
        place = known
        for part in key.split(".") if key else ():
            assert part in place, f"{key} is not a key of worker.yaml"
            place = place[part]
