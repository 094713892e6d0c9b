"""Turns the command line, the environment, worker.yaml and defaults into settings.

A group of settings is a frozen dataclass whose fields are made by `setting(...)`. For each field the first of these
that has a value wins: the caller's (command line or code) > environment > worker.yaml > default.
A renamed setting still answers to its old names; each use of one logs `setting.renamed` once per process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec

from runpod_worker.config.bounds import Bounds, bare_type
from runpod_worker.config.env import environment
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import log

T = TypeVar("T")


class Old(NamedTuple):
    """The names of a setting before it was renamed. They work until version 0.3, each with a warning."""

    name: str | None = None
    """The field of the settings class, as code gives it."""
    env: str | None = None
    """The environment variable."""
    file: str | None = None
    """The key in worker.yaml, with dots between levels."""


def setting(
    default: Any = MISSING,
    *env: str,
    text: str,
    file: str | None = None,
    secret: bool = False,
    scale: float = 1,
    old: Old | None = None,
    default_factory: Any = MISSING,
    cli: str | None = None,
    **bounds: Any,
) -> Any:
    """Return a dataclass field for a setting.

    Args:
        default: the value if no source has one.
        env: environment variables that set it; the first that is set and not empty wins.
        text: one line for the table of settings.
        file: its key in worker.yaml, with dots between levels.
        secret: hide the value when it is printed.
        scale: factor for the environment's number (0.001 when it is in milliseconds).
        old: its former names; the new names win over them.
        default_factory: makes the default value, in place of `default`.
        cli: the option of the command line that sets it, such as `--grace`.
        bounds: the fields of `Bounds`; a value that they do not accept is refused, wherever it comes from.
    """
    about = {
        "env": env,
        "text": text,
        "file": file,
        "secret": secret,
        "scale": scale,
        "old": old or Old(),
        "cli": cli,
        "bounds": Bounds(**bounds),
    }
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=about)
    return field(default=default, metadata=about)


class Option(NamedTuple):
    """An option of the command line for a setting."""

    name: str
    """The setting's name."""
    flag: str
    """Such as `--grace`."""
    kind: type[Any]
    """The type of its value: str, int or float."""
    bounds: Bounds
    help: str


class Loaded(NamedTuple):
    """The value of a setting, and its origin."""

    name: str
    value: object
    origin: str


def load(
    cls: type[T],
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    given_from: str = "command line",
) -> T:
    """Return `cls` with values from `given` (None: not given), the environment, worker.yaml and defaults.

    Raises:
        SettingsError: a value is not of the setting's type or not within its bounds, or a name in `given` is
            not a setting.
    """
    settings = resolve(cls, given, env=env, file=file, given_from=given_from)
    return cls(**{loaded.name: loaded.value for loaded in settings})


def resolve(
    cls: type[Any],
    given: Mapping[str, object] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    file: Mapping[str, object] | None = None,
    given_from: str = "command line",
) -> list[Loaded]:
    """Return every setting of `cls` with its value and origin."""
    given = given or {}
    known = {spec.name for spec in fields(cls)}
    old = {_old(spec).name for spec in fields(cls)}
    if unknown := set(given) - known - old:
        raise SettingsError(f"{sorted(unknown)[0]} is not a setting; known: {', '.join(sorted(known))}")
    types = get_type_hints(cls)
    sources = _Sources(given, environment() if env is None else env, file or {}, given_from)
    return [sources.resolve(spec, types[spec.name]) for spec in fields(cls)]


class _Sources:
    """The sources of settings, in the order of precedence."""

    def __init__(
        self, given: Mapping[str, object], env: Mapping[str, str], file: Mapping[str, object], given_from: str
    ) -> None:
        self.given = given
        self.env = env
        self.file = file
        self.given_from = given_from

    def resolve(self, spec: Field[Any], kind: Any) -> Loaded:
        for value, origin, label in self._values(spec):
            scale = spec.metadata.get("scale", 1) if origin.startswith("environment ") else 1
            return Loaded(spec.name, _convert(value, kind, label, _bounds(spec), scale), origin)
        if spec.default is not MISSING:
            return Loaded(spec.name, spec.default, "default")
        if spec.default_factory is not MISSING:
            return Loaded(spec.name, spec.default_factory(), "default")
        variables = " or ".join(spec.metadata.get("env", ()))
        raise SettingsError(f"{spec.name} is required: set {variables}" if variables else f"{spec.name} is required")

    def _values(self, spec: Field[Any]) -> Iterator[tuple[object, str, str]]:
        """Yield each value that is set, its origin, and its name in an error."""
        env, file, old = spec.metadata.get("env", ()), spec.metadata.get("file"), _old(spec)
        for name in (spec.name, old.name):
            if name and self.given.get(name) is not None:
                _warn_if_old(name, old.name, spec.name)
                yield self.given[name], self.given_from, self._label(spec, name)
        for variable in (*env, old.env):
            if variable and self.env.get(variable):
                _warn_if_old(variable, old.env, env[0] if env else spec.name)
                yield self.env[variable], f"environment {variable}", variable
        for key in (file, old.file):
            if key and (value := _at(self.file, key)) is not None:
                _warn_if_old(f"worker.yaml {key}", f"worker.yaml {old.file}", f"worker.yaml {file}")
                yield value, f"worker.yaml {key}", f"worker.yaml {key}"

    def _label(self, spec: Field[Any], name: str) -> str:
        flag = spec.metadata.get("cli") if self.given_from == "command line" else None
        return flag or f"{name} ({self.given_from})"


def _bounds(spec: Field[Any]) -> Bounds:
    return spec.metadata.get("bounds") or Bounds()


def _old(spec: Field[Any]) -> Old:
    return spec.metadata.get("old") or Old()


_WARNED: set[str] = set()


def _warn_if_old(name: str, old: str | None, new: str) -> None:
    if name == old and name not in _WARNED:
        _WARNED.add(name)
        log.warning("setting.renamed", extra={"old": name, "new": new, "until": "0.3"})


def warn_of_unknown(prefix: str, classes: Sequence[type[Any]], env: Mapping[str, str] | None = None) -> None:
    """Log a warning for each variable with this prefix that sets nothing in `classes`, with the nearest known name."""
    known = {
        name for cls in classes for spec in fields(cls) for name in (*spec.metadata.get("env", ()), _old(spec).env)
    }
    for name in environment() if env is None else env:
        if name.startswith(prefix) and name not in known and name not in _WARNED:
            from difflib import get_close_matches

            _WARNED.add(name)
            nearest = get_close_matches(name, [variable for variable in known if variable], 1, 0.0)
            log.warning("setting.unknown", extra={"variable": name, "nearest": ", ".join(nearest)})


def _at(file: Mapping[str, object], key: str) -> object:
    value: object = file
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _convert(value: object, kind: Any, label: str, bounds: Bounds, scale: float) -> Any:
    given = value
    if kind in (bool, bool | None) and isinstance(value, str):
        value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower(), value)
    more = ""
    try:
        converted = msgspec.convert(value, kind, strict=False, dec_hook=_decode)
        converted = converted * scale if scale != 1 else converted
        if bounds.accepts(converted):
            return converted
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        more = "" if str(error).startswith("Expected") else f": {error}"
    raise SettingsError(f"{label}: expected {bounds.describe(kind, scale)}, got {given!r:.200}{more}")


def _decode(kind: type, value: object) -> object:
    if issubclass(kind, Path):
        return Path(str(value)).expanduser()
    raise ValueError(f"cannot be read as {kind.__name__}")


def options(cls: type[Any]) -> list[Option]:
    """Return the command line's options for the settings in `cls`."""
    types = get_type_hints(cls)
    specs = [(spec.name, spec.metadata) for spec in fields(cls) if spec.metadata.get("cli")]
    return [
        Option(name, about["cli"], bare_type(types[name]), about["bounds"], f"{about['text']}. [{about['env'][0]}]")
        for name, about in specs
    ]


def file_keys(cls: type[Any]) -> set[str]:
    """Return the keys of worker.yaml that set something in `cls`, old names included."""
    return {key for spec in fields(cls) for key in (spec.metadata.get("file"), _old(spec).file) if key}


def rows(cls: type[Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield the rows of the table of settings: name, variables, key in worker.yaml, default, accepted values, text."""
    types = get_type_hints(cls)
    for spec in fields(cls):
        about = spec.metadata
        default = "" if spec.default in (MISSING, None) else str(spec.default)
        accepted = _bounds(spec).describe(types[spec.name]) if about.get("env") else ""
        former = ", ".join(f"`{name}`" for name in _old(spec) if name)
        text = about.get("text", "") + (f" (until 0.3 also: {former})" if former else "")
        yield spec.name, ", ".join(about.get("env", ())), about.get("file") or "", default, accepted, text
