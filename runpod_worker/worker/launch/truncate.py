"""Truncates JSON values for people. Long strings, lists and objects show their beginning and how much more there is."""

from __future__ import annotations

from typing import Any

MAX_TEXT, SHOWN_CHARS = 400, 100
"""Characters. A longer string shows its first ones."""

MAX_ITEMS, SHOWN_ITEMS = 16, 4
"""A longer list shows its first items."""

MAX_KEYS = 50
"""A larger object shows its first keys."""


def truncate(value: Any) -> Any:
    """Return the part of a JSON value that fits on a screen."""
    match value:
        case str() if len(value) > MAX_TEXT:
            return f"{value[:SHOWN_CHARS]}{_count(len(value) - SHOWN_CHARS)} characters"
        case list() if len(value) > MAX_ITEMS:
            return [*map(truncate, value[:SHOWN_ITEMS]), _count(len(value) - SHOWN_ITEMS)]
        case list():
            return [truncate(item) for item in value]
        case dict():
            shown = {key: truncate(item) for key, item in list(value.items())[:MAX_KEYS]}
            return shown | ({"…": _count(len(value) - MAX_KEYS)} if len(value) > MAX_KEYS else {})
        case _:
            return value


def _count(count: int) -> str:
    return f"… {count:,} more"
