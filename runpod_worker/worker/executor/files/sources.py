"""The ways in which callers name a file: URL, data URL or base64. This module does no I/O."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

EXPECTED = "a URL, a data URL or base64"

DEFAULT_NAME = "file"
MAX_STEM_BYTES = 200
"""A longer file name is cut."""

_UNSAFE = re.compile(r"[^\w.,+=@ ()-]")
_URL = re.compile(r"https?://", re.IGNORECASE)
_DATA = re.compile(r"data:(?P<kind>[^;,]*)(?P<options>(;[^,]*)?),", re.IGNORECASE)


def is_url(source: str) -> bool:
    """Whether the file has to be downloaded."""
    return _URL.match(source) is not None


def file_name(source: str) -> str:
    """A safe name for the file, with the suffix of the URL or of the data URL's type."""
    if match := _DATA.match(source):
        return DEFAULT_NAME + (mimetypes.guess_extension(match["kind"].lower()) or "")
    if not is_url(source):
        return DEFAULT_NAME
    try:
        last = PurePosixPath(unquote(urlsplit(source).path)).name
    except ValueError:  # the download will fail and say why
        return DEFAULT_NAME
    path = PurePosixPath(_UNSAFE.sub("_", last).lstrip("."))
    stem = path.stem.encode(errors="ignore")[:MAX_STEM_BYTES].decode(errors="ignore")
    return (stem or DEFAULT_NAME) + path.suffix[:12]


def describe(source: str) -> str:
    """A description of the source for logs: a URL without the parts that may contain secrets."""
    if match := _DATA.match(source):
        return f"a data URL ({match['kind'] or 'text/plain'})"
    if not is_url(source):
        return "base64"
    bare = re.split(r"[?#]", source, maxsplit=1)[0]
    return re.sub(r"//[^/]*@", "//", bare)


def decode(source: str, expected: str = EXPECTED) -> bytes:
    """The bytes of a data URL or of base64.

    Raises:
        ValueError: the source is neither; the error names what is `expected`.
    """
    match = _DATA.match(source)
    if match is None:
        return _decode_base64(source, expected)
    data = source[match.end() :]
    if match["options"].lower().endswith(";base64"):
        return _decode_base64(unquote(data) if "%" in data else data, expected)
    return unquote_to_bytes(data)


def _decode_base64(text: str, expected: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"expected {expected}, got other text") from None
