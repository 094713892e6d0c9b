"""The rule for names of output files, shared by `job.save` and the job service."""

from __future__ import annotations

import re

MAX_FILE_NAME_BYTES = 255
"""A longer name is refused, in bytes of UTF-8: the limit of most file systems."""

MAX_SHOWN = 100
"""Characters or bytes of a refused name that an error shows."""

EXPECTED_FILE_NAME = (
    "a plain file name such as out.png: "
    f"at most {MAX_FILE_NAME_BYTES} bytes of UTF-8, no slash, no backslash, no control character"
)

_FORBIDDEN = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


def is_file_name(name: object) -> bool:
    """Whether the name is a plain file name that every store accepts."""
    if not isinstance(name, str) or name in ("", ".", "..") or _FORBIDDEN.search(name):
        return False
    try:
        return len(name.encode()) <= MAX_FILE_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def describe_file_name(name: object) -> str:
    """Describe a refused name in an error. The beginning is enough, because it may be the content by mistake."""
    text = repr(name[:MAX_SHOWN] if isinstance(name, (str, bytes)) else name)[: 4 * MAX_SHOWN]
    return text if isinstance(name, str) else f"{text} ({type(name).__name__})"
