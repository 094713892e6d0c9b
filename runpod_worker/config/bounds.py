"""The values that a setting accepts: the check, and the words for errors and for the page of settings."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

MAX_TIME_S = 315_360_000
"""Ten years. A setting refuses a longer time: sums with today's time would not fit everywhere they are stored."""

MAX_SETTING_BYTES = 2**40
"""A setting refuses a larger size."""

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}


class Bounds(NamedTuple):
    """What a setting accepts beside its type."""

    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    """A regular expression that the whole text matches."""
    words: str = ""
    """The pattern in words, as in "expected ..."."""
    url: bool = False
    """An http or https URL with a host."""

    def accepts(self, value: object) -> bool:
        """Whether a value of the right type is within the bounds."""
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)
        if isinstance(value, str):
            return (not self.pattern or bool(re.fullmatch(self.pattern, value))) and (not self.url or is_url(value))
        return True

    def describe(self, kind: Any, scale: float = 1) -> str:
        """Say what is expected, with numbers in the unit that times `scale` is the setting's."""
        if self.words or self.url:
            return self.words or "http(s)://host[:port][/path]"
        bare = bare_type(kind)
        name = _KINDS.get(bare, getattr(bare, "__name__", str(bare)))
        low, high = (None if bound is None else f"{bound / scale:.15g}" for bound in (self.minimum, self.maximum))
        if low is None:
            return name if high is None else f"{name} of at most {high}"
        return f"{name} of at least {low}" if high is None else f"{name} from {low} to {high}"


def is_url(text: str) -> bool:
    """Whether this is an http or https URL with a host and a possible port."""
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and (parts.port or 0) >= 0  # reading a port that is none raises
        return parts.scheme in ("http", "https") and has_host and text.isprintable() and " " not in text
    except ValueError:
        return False


def bare_type(kind: Any) -> Any:
    """Return the type without `None`."""
    return next((part for part in get_args(kind) if part is not type(None)), kind)
