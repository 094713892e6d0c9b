"""What `run(value)` sends: whether `value` is a whole request or only an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from runpod_worker.core.errors import BadRequest

from .exchange import Json

REQUEST_KEYS = frozenset({"input", "policy", "s3Config", "webhook", "webhookV2"})
"""The keys of a request (protocol A.3)."""


def as_request(value: Json) -> Json:
    """Return `value` as a request.

    A mapping with `input`, and no keys but `webhook`, `webhookV2`, `policy` and `s3Config` beside it, is a whole
    request and is sent unchanged: `{"input": {}}` is a job with an empty input. Any other value is an input:
    `{"prompt": "..."}`, `{"input": "...", "voice": "..."}`, a list, a string.
    """
    if isinstance(value, Mapping) and "input" in value and REQUEST_KEYS.issuperset(value):
        return value
    return {"input": value}


def encode_json(value: Json) -> bytes:
    """Return `value` as JSON.

    Bytes become base64, NaN becomes null; dates, dataclasses and enums are encoded as msgspec does.

    Raises:
        BadRequest: a part of `value` has no JSON form; the message has its path.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        where, part = _first_unserialisable("", value)
        raise BadRequest(f"{where or 'request'}: {type(part).__name__} cannot be sent as JSON: {error}") from error


def _first_unserialisable(path: str, value: Json) -> tuple[str, Json]:
    """The path and value of the deepest part of `value` that cannot be encoded."""
    for inner, part in _parts(path, value):
        try:
            msgspec.json.encode(part)
        except (TypeError, ValueError, OverflowError):
            return _first_unserialisable(inner, part)
        except RecursionError:
            return path, value
    return path, value


def _parts(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        return ((f"{path}.{key}" if path else str(key), part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return ((f"{path}[{index}]", part) for index, part in enumerate(value))
    return iter(())
