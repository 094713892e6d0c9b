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
MAX_SHOWN_CHARS = 60
"""An error shows this much of a wrong value and cuts the rest."""
_MISSING = object()


def validate(value: Any, kind: Any, name: str = "input", *, decode: Callable[[type, Any], Any] | None = None) -> Any:
    """Return `value` as `kind`. `decode` makes values of types that msgspec does not know; pydantic models ignore it.

    Raises:
        InputError: `value` does not fit the type; the message names the field, the expected type and the value,
            as in `input.steps: expected int >= 1, got 0 (int)`.
    """
    if hasattr(kind, "model_validate"):
        return _by_pydantic(value, kind, name)
    try:
        return msgspec.convert(value, kind, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise InputError(_readable(str(error), value, name)) from error


def _readable(message: str, value: Any, name: str) -> str:
    """msgspec's message as `path: expected ..., got ...`."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    message = message[: at.start()] if at else message
    expected = _EXPECTED.match(message)
    if expected is None:
        return f"{name}{path}: {message[:1].lower()}{message[1:].replace('`', '')}"
    return f"{name}{path}: expected {expected['wanted'].replace('`', '')}{_got(_value_at(value, path))}"


def _got(value: Any) -> str:
    if value is _MISSING:
        return ""
    if value is None:
        return ", got null"
    shown = repr(value)
    shown = shown if len(shown) <= MAX_SHOWN_CHARS else shown[:MAX_SHOWN_CHARS] + "..."
    return f", got {shown} ({type(value).__name__})"


def _value_at(value: Any, path: str) -> Any:
    for key, index in _STEP.findall(path):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):  # msgspec writes `[...]` for any key of a dict
            return _MISSING
    return value


def path_to(part: Any, value: Any, name: str = "input") -> str:
    """The path in `value` of this very object, as in `input.pictures[2]`; `name` if `value` does not contain it."""
    return _path_to(part, value, name) or name


def _path_to(part: Any, value: Any, path: str) -> str | None:
    if value is part:
        return path
    items: Any = ()
    if isinstance(value, dict):
        items = ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, list):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    return next((inner for step, item in items if (inner := _path_to(part, item, path + step))), None)


def _by_pydantic(value: Any, kind: Any, name: str) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:  # pydantic.ValidationError is one
        details = getattr(error, "errors", None)
        if details is None:
            raise InputError(f"{name}: {error}") from error
        raise InputError("; ".join(_pydantic_line(detail, name) for detail in details())) from error


def _pydantic_line(detail: dict[str, Any], name: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    message = f"{name}{path}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
    return message if detail["type"] == "missing" else message + _got(detail["input"])
