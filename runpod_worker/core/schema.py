"""Check a job's input against the type a handler asks for, with errors a caller can act on.

A type is a dataclass, a TypedDict, a msgspec.Struct, anything else msgspec knows, or a pydantic model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from runpod_worker.core.errors import InputError

_AT = re.compile(r" - at `\$(?P<path>.*)`$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected (?P<wanted>.+?)(, got .+)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_SHOWN = 60
_MISSING = object()


def validated(value: Any, kind: Any, name: str = "input", *, decoded: Callable[[type, Any], Any] | None = None) -> Any:
    """Return `value` as `kind`. `decoded` makes what is of a type of our own; pydantic does not ask it.

    Raises:
        InputError: it is not of that type; the message names the field, what was expected and what came,
            as in `input.steps: expected int >= 1, got 0 (int)`.
    """
    if hasattr(kind, "model_validate"):
        return _by_pydantic(value, kind, name)
    try:
        return msgspec.convert(value, kind, dec_hook=decoded)
    except msgspec.ValidationError as error:
        raise InputError(_readable(str(error), value, name)) from error


def _readable(message: str, value: Any, name: str) -> str:
    """msgspec's message in our words: the place first, then what was expected and what came."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    message = message[: at.start()] if at else message
    expected = _EXPECTED.match(message)
    if expected is None:
        return f"{name}{path}: {message[:1].lower()}{message[1:].replace('`', '')}"
    return f"{name}{path}: expected {expected['wanted'].replace('`', '')}{_got(_value_at(value, path))}"


def _got(found: Any) -> str:
    if found is _MISSING:
        return ""
    if found is None:
        return ", got null"
    shown = repr(found)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return f", got {shown} ({type(found).__name__})"


def _value_at(value: Any, path: str) -> Any:
    for key, index in _STEP.findall(path):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):  # `[...]` stands for any key of a dict
            return _MISSING
    return value


def place_of(part: Any, value: Any, name: str = "input") -> str:
    """Where in `value` this very object is, as in `input.pictures[2]`; `name` when it is nowhere."""
    return _place_of(part, value, name) or name


def _place_of(part: Any, value: Any, path: str) -> str | None:
    if value is part:
        return path
    items: Any = ()
    if isinstance(value, dict):
        items = ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, list):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    return next((found for step, item in items if (found := _place_of(part, item, path + step))), None)


def _by_pydantic(value: Any, kind: Any, name: str) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:  # pydantic.ValidationError is one
        details = getattr(error, "errors", None)
        if details is None:
            raise InputError(f"{name}: {error}") from error
        raise InputError("; ".join(_pydantic_line(one, name) for one in details())) from error


def _pydantic_line(one: dict[str, Any], name: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in one["loc"])
    message = f"{name}{path}: {one['msg'][:1].lower()}{one['msg'][1:]}"
    return message if one["type"] == "missing" else message + _got(one["input"])
