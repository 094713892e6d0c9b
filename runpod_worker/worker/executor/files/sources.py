"""How a caller names a file: a URL, a data URL, or the bytes themselves in base64. Nothing here does any I/O."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from pathlib import PurePosixPath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

WANTED = "a URL, a data URL or base64"

PLAIN_NAME = "file"
LONGEST_BYTES = 200

_OTHER = re.compile(r"[^\w.,+=@ ()-]")
_URL = re.compile(r"https?://", re.IGNORECASE)
_DATA = re.compile(r"data:(?P<kind>[^;,]*)(?P<more>(;[^,]*)?),", re.IGNORECASE)


def is_url(source: str) -> bool:
    """Whether it has to be downloaded."""
    return _URL.match(source) is not None


def name_of(source: str) -> str:
    """A name for the file, with the suffix that the URL or the data URL's type gives it."""
    if found := _DATA.match(source):
        return PLAIN_NAME + (mimetypes.guess_extension(found["kind"].lower()) or "")
    if not is_url(source):
        return PLAIN_NAME
    try:
        last = PurePosixPath(unquote(urlsplit(source).path)).name
    except ValueError:  # it cannot be downloaded either, which is told then
        return PLAIN_NAME
    path = PurePosixPath(_OTHER.sub("_", last).lstrip("."))
    stem = path.stem.encode(errors="ignore")[:LONGEST_BYTES].decode(errors="ignore")
    return (stem or PLAIN_NAME) + path.suffix[:12]


def shown(source: str) -> str:
    """The file in words that may be logged: a URL without what may be a secret in it."""
    if found := _DATA.match(source):
        return f"a data URL ({found['kind'] or 'text/plain'})"
    if not is_url(source):
        return "base64"
    bare = re.split(r"[?#]", source, maxsplit=1)[0]
    return re.sub(r"//[^/]*@", "//", bare)


def content(source: str) -> bytes:
    """The bytes of a data URL or of base64.

    Raises:
        ValueError: it is neither.
    """
    found = _DATA.match(source)
    if found is None:
        return _decoded(source)
    data = source[found.end() :]
    if found["more"].lower().endswith(";base64"):
        return _decoded(unquote(data) if "%" in data else data)
    return unquote_to_bytes(data)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"expected {WANTED}, got other text") from None
