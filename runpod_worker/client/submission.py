"""What `run(x)` sends: the rule that tells a whole request from a bare input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from runpod_worker.core.errors import BadRequest

from .exchange import Json

REQUEST_KEYS = frozenset({"input", "policy", "s3Config", "webhook", "webhookV2"})
"""What a request may hold beside its input (protocol A.3)."""


def whole_request(value: Json) -> Json:
    """Return the request that `value` stands for.

    A mapping that has `input` and beside it nothing but `webhook`, `webhookV2`, `policy` and `s3Config` is a whole
    request and is sent as it is, whatever its input is: `{"input": {}}` is a job with an empty input. Anything else
    is an input: `{"prompt": "..."}`, `{"input": "...", "voice": "..."}`, a list, a string.
    """
    if isinstance(value, Mapping) and "input" in value and REQUEST_KEYS.issuperset(value):
        return value
    return {"input": value}


def encoded(value: Json) -> bytes:
    """Return `value` as JSON.

    Beside JSON's own types: bytes become base64, NaN becomes null, dates, dataclasses and enums as msgspec has them.

    Raises:
        BadRequest: something in it has no JSON form; the message says where.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        where, culprit = _culprit("", value)
        raise BadRequest(f"{where or 'request'}: {type(culprit).__name__} cannot be sent as JSON: {error}") from error


def _culprit(path: str, value: Json) -> tuple[str, Json]:
    """The deepest part of `value` that still cannot be encoded."""
    for inner, part in _parts(path, value):
        try:
            msgspec.json.encode(part)
        except (TypeError, ValueError, OverflowError):
            return _culprit(inner, part)
        except RecursionError:
            return path, value
    return path, value


def _parts(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping):
        return ((f"{path}.{key}" if path else str(key), part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return ((f"{path}[{index}]", part) for index, part in enumerate(value))
    return iter(())
