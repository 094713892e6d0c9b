"""Reads the Hub's `.runpod/hub.json` and `.runpod/tests.json` (protocol D.8); keys we do not use may stand there."""

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
    """A variable that people fill in on the Hub's page."""

    default: str | int | float | bool | None = None


class HubVariable(msgspec.Struct, kw_only=True, frozen=True):
    """An environment variable of the worker: a fixed value, or one with a default that people may change."""

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
    """The tests of `folder`'s tests.json, None when there is no such file.

    Raises:
        SettingsError: it is not JSON, or a field is of the wrong type.
    """
    found = _read(folder, "tests.json", HubTests)
    return None if found is None else tuple(_case(one) for one in found.tests)


def variables(folder: Path) -> dict[str, str]:
    """The environment that hub.json and tests.json give a worker in a test; tests.json wins. Raises as `cases` does."""
    hub = _read(folder, "hub.json", Hub)
    tests = _read(folder, "tests.json", HubTests)
    return _values(hub.config.env if hub else ()) | _values(tests.config.env if tests else ())


def path_of(folder: Path, name: str) -> Path | None:
    """Where the file is: `.runpod/` goes before the folder itself, as on the Hub."""
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


def _case(found: HubCase) -> Case:
    output = found.output if found.output is not UNSET else found.expected_output
    return Case(input=found.input, name=found.name, output=output, timeout=found.timeout / 1000)


def _values(env: Iterable[HubVariable]) -> dict[str, str]:
    values: dict[str, str] = {}
    for one in env:
        default = one.input.default if one.input else None
        if one.value is not None:
            values[one.key] = one.value
        elif default is not None:
            values[one.key] = json.dumps(default) if isinstance(default, bool | int | float) else default
    return values
