"""How deep JSON is nested, without recursion: a parser that recurses must not see JSON that is nested too deep."""

from __future__ import annotations

from itertools import accumulate

MAX_JSON_DEPTH = 256
"""Levels of objects and arrays in one body, the outermost included. A deeper body is refused."""

MAX_REPLY_DEPTH = 2 * MAX_JSON_DEPTH
"""Levels in a reply, which contains bodies of `MAX_JSON_DEPTH` levels. A deeper reply counts as garbage."""

_SHALLOWING_ROUNDS = 4

_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(b'[{]}"'))


def check_depth(body: bytes, error: type[Exception], limit: int = MAX_JSON_DEPTH) -> None:
    """Raise `error` if the JSON in `body` has more than `limit` levels. Text that is not JSON may pass."""
    if body.count(b"[") + body.count(b"{") > limit:
        depth = json_depth(body)
        if depth > limit:
            raise error(f"body: expected at most {limit} levels of nested objects and arrays, found {depth}")


def json_depth(body: bytes) -> int:
    """Return the levels of objects and arrays in JSON. Of other text, at least the levels of its valid beginning."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # then every quote begins or ends a string
    steps = body.translate(_TO_STEPS, _OTHERS).replace(b'""', b"")
    if b'"' in steps:
        steps = b"".join(steps.split(b'"')[::2])
    levels = 0
    while levels < _SHALLOWING_ROUNDS and b"\x01\xff" in steps:  # drop the innermost level: most JSON is wide, not deep
        steps = steps.replace(b"\x01\xff", b"")
        levels += 1
    return levels + max(accumulate(memoryview(steps).cast("b"), initial=0))
