"""A JSON value for people to look at: long strings, lists and objects keep their beginning and say what is left out."""

from __future__ import annotations

from typing import Any

LONGEST_TEXT = 400
SHOWN_TEXT = 100
LONGEST_LIST = 16
SHOWN_ITEMS = 4
LONGEST_OBJECT = 50


def shortened(value: Any) -> Any:
    """`value`, or what fits on a screen of it."""
    match value:
        case str() if len(value) > LONGEST_TEXT:
            return f"{value[:SHOWN_TEXT]}{_left_out(len(value) - SHOWN_TEXT)} characters"
        case list() if len(value) > LONGEST_LIST:
            return [*map(shortened, value[:SHOWN_ITEMS]), _left_out(len(value) - SHOWN_ITEMS)]
        case list():
            return [shortened(item) for item in value]
        case dict():
            kept = list(value.items())[:LONGEST_OBJECT]
            rest = {"…": _left_out(len(value) - LONGEST_OBJECT)} if len(value) > LONGEST_OBJECT else {}
            return {key: shortened(item) for key, item in kept} | rest
        case _:
            return value


def _left_out(count: int) -> str:
    return f"… {count:,} more"
