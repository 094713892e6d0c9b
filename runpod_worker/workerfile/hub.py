"""Reads the Hub's `.runpod/hub.json` and `.runpod/tests.json` (protocol D.8). Ignores keys that we do not use."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile.model import Case

T = TypeVar("T")


class HubInput(msgspec.Struct, kw_only=True, frozen=True):
    """A variable that users fill in on the Hub's page."""

    default: str | int | float | bool | None = None


class HubVariable(msgspec.Struct, kw_only=True, frozen=True):
    """An environment variable of the worker: a fixed value, or a default that users may change."""

    key: str
    value: str | None = None
    input: HubInput | None = None


class HubConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The machine and the environment; only the environment matters here."""

    env: tuple[HubVariable, ...] = ()


class Hub(msgspec.Struct, kw_only=True, frozen=True):
    """`.runpod/hub.json`: how the Hub shows and deploys this worker."""

    title: str = ""
    config: HubConfig = HubConfig()


class HubCase(msgspec.Struct, kw_only=True, frozen=True):
    """One entry of tests.json; `output` and `expected_output` are ours, the Hub compares nothing."""

    input: Any
    name: str | None = None
    timeout: Annotated[float, Meta(gt=0)] = 30_000
    output: Any | UnsetType = UNSET
    expected_output: Any | UnsetType = UNSET


class HubTests(msgspec.Struct, kw_only=True, frozen=True):
    """`.runpod/tests.json`."""

    tests: tuple[HubCase, ...] = ()
    config: HubConfig = HubConfig()


def cases(folder: Path) -> tuple[Case, ...] | None:
    """Return the tests of `folder`'s tests.json, or None without such a file.

    Raises:
        SettingsError: it is not JSON, or a field has the wrong type.
    """
    file = _read(folder, "tests.json", HubTests)
    return None if file is None else tuple(_case(test) for test in file.tests)


def variables(folder: Path) -> dict[str, str]:
    """Return the environment of a worker in a test: hub.json's, then tests.json's. Raises as `cases` does."""
    hub = _read(folder, "hub.json", Hub)
    tests = _read(folder, "tests.json", HubTests)
    return _values(hub.config.env if hub else ()) | _values(tests.config.env if tests else ())


def path_of(folder: Path, name: str) -> Path | None:
    """Return the path of the file: `.runpod/` comes before the folder itself, as on the Hub."""
    places = (folder / ".runpod" / name, folder / name)
    return next((path for path in places if path.is_file()), None)


def _read(folder: Path, name: str, kind: type[T]) -> T | None:
    path = path_of(folder, name)
    if path is None:
        return None
    try:
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), kind)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        raise SettingsError(f"{path}: {place.strip('`').removeprefix('$.') or 'the file'}: {what}") from None


def _case(test: HubCase) -> Case:
    output = test.output if test.output is not UNSET else test.expected_output
    return Case(input=test.input, name=test.name, output=output, timeout=test.timeout / 1000)


def _values(env: Iterable[HubVariable]) -> dict[str, str]:
    values: dict[str, str] = {}
    for variable in env:
        default = variable.input.default if variable.input else None
        if variable.value is not None:
            values[variable.key] = variable.value
        elif default is not None:
            values[variable.key] = json.dumps(default) if isinstance(default, bool | int | float) else default
    return values
