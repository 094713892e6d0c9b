"""Turns returned, yielded and raised values into outcomes. This file has every rule about them (protocol B.6, C.2).

1. In a returned dict, a truthy "error" fails the job with that error; a truthy "refresh_worker" replaces the worker.
   The output omits both keys; the handler's own dict is not changed.
2. A string is an error verbatim; any other error, and an exception, becomes a string of JSON.
3. `{}` means no output at all. Everything else is the output, `None` included.
4. A value that is not JSON fails the job; the error names its place. NaN and infinities become null, because JSON has
   nothing else for them; single numbers of numpy and torch become numbers.
5. Every error is text that can be encoded, of a bounded length. Describing an exception never raises.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

import runpod_worker.worker
from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.values import Outcome
from runpod_worker.core.errors import InputError, OutputError
from runpod_worker.core.protocol import MAX_RESULT_BYTES, MIB, SDK_VERSION
from runpod_worker.core.text import encodable, shorten

MAX_ERROR_BYTES = MIB
"""A longer error loses its middle."""

MAX_EXCEPTION_BYTES = 64 * 1024
"""The message of an exception, and its traceback. A longer one loses its middle."""

MAX_FRAMES = 1000
"""The last frames of a traceback; the others are left out. Python's own limit of a recursion is the same."""

MAX_GROUP_WIDTH, MAX_GROUP_DEPTH = 10, 5
"""Of a group of exceptions; the traceback leaves out the others."""

MAX_PATH_BYTES = 200
"""The path to a value in an error. A longer one loses its middle."""

_OWN_CODE = str(Path(runpod_worker.worker.__file__).parent)
_KEYS = {None: "null", True: "true", False: "false"}


def outcome_of_return(value: Any) -> Outcome:
    """The outcome of a handler that returned `value`. Encodes now, because the next job may change the value."""
    try:
        if not isinstance(value, dict):
            return Outcome(_check_size(encode(value)))
        error, output = value.get("error"), value
        if "error" in value or "refresh_worker" in value:
            output = {key: item for key, item in value.items() if key not in ("error", "refresh_worker")}
        text = error_text(error) if error else None
        data = _check_size(encode(output)) if output else None
        return Outcome(data, text, refresh=bool(value.get("refresh_worker")))
    except OutputError as failure:
        return Outcome(error=shorten(str(failure), MAX_ERROR_BYTES))


def yielded_error(value: Any) -> str | None:
    """The error in a yielded value (a dict with a truthy "error"); None if the value is a chunk."""
    if isinstance(value, dict) and value.get("error"):
        return error_text(value["error"])
    return None


def encode_chunk(value: Any) -> bytes:
    """Encode a yielded value. RunPod's service splits chunks over 1 MB itself.

    Raises:
        OutputError: the value is not JSON, or too large for any job service.
    """
    return _check_size(encode(value), "a chunk")


def encode_progress(value: Any) -> bytes:
    """Encode a progress value.

    Raises:
        OutputError: the value is not JSON, or too large for any job service.
    """
    return _check_size(encode(value, "progress"), "progress")


def outcome_of_stream(chunks: list[bytes] | None, error: str | None = None) -> Outcome:
    """The outcome of a generator: its chunks if they are aggregated, else `[]`. A failed one keeps its chunks."""
    if error is not None and not chunks:
        return Outcome(error=error)
    try:
        return Outcome(_check_size(b"[" + b",".join(chunks or ()) + b"]"), error)
    except OutputError as too_large:
        return Outcome(error=error or str(too_large))


def outcome_of_exception(error: BaseException, settings: WorkerSettings) -> Outcome:
    """The outcome of a handler that raised: the fields that the platform's SDK sends, as a string of JSON.

    InputError (the caller's fault) and OutputError (a value that cannot be sent) become their plain text instead.
    """
    if isinstance(error, InputError | OutputError):
        return Outcome(error=shorten(_text_of(error), MAX_ERROR_BYTES))
    fields = {
        "error_type": type.__repr__(type(error)),
        "error_message": shorten(_text_of(error), MAX_EXCEPTION_BYTES),
        "error_traceback": traceback_of(error),
        "hostname": settings.hostname,
        "worker_id": settings.worker_id,
        "runpod_version": SDK_VERSION,
        "runpod_worker_version": runpod_worker.__version__,
    }
    return Outcome(error=_encoder.encode({name: encodable(text) for name, text in fields.items()}).decode())


def traceback_of(error: BaseException) -> str:
    """The traceback from the user's first frame on; without the message if the exception cannot be described."""
    first: TracebackType | None = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        first = first.tb_next
    try:
        lines = _lines_of(error, first)
    except BaseException:  # from the exception's own code, which must not end the executor
        lines = traceback.format_tb(first, limit=-MAX_FRAMES)
    return shorten("".join(lines), MAX_EXCEPTION_BYTES)


def _lines_of(error: BaseException, first: TracebackType | None) -> list[str]:
    if isinstance(error, RuntimeError) and str(error) == "no running event loop":
        error.add_note("A plain function has no event loop: declare the handler with async def, or call asyncio.run.")
    whole = traceback.TracebackException(
        type(error),
        error,
        first,
        limit=-MAX_FRAMES,
        max_group_width=MAX_GROUP_WIDTH,
        max_group_depth=MAX_GROUP_DEPTH,
    )
    return list(whole.format())


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:  # as above
        return f"<the exception's __str__ raised {type(failure).__name__}>"


def error_text(error: Any) -> str:
    """An error as callers see it: a string verbatim, an exception's type and text, anything else as JSON."""
    if isinstance(error, BaseException):
        error = _plain_error(error)
    text = error if isinstance(error, str) else _encode(error, "error", _error_encoder).decode()
    return shorten(text, MAX_ERROR_BYTES)


def encode(value: Any, name: str = "output") -> bytes:
    """Encode `value` as JSON.

    Raises:
        OutputError: something in it is not JSON; the message names the place, beginning with `name`.
    """
    return _encode(value, name, _encoder)


def _encode(value: Any, name: str, encoder: msgspec.json.Encoder) -> bytes:
    try:
        return encoder.encode(value)
    except Exception as error:  # values may have code of their own, which may raise anything
        with suppress(Exception):
            return encoder.encode(_with_text_keys(value))
        try:
            text = _describe(value, name, error)
        except Exception:
            text = f"{name} holds a value that is not JSON, and cannot be described"
        raise OutputError(encodable(text)) from None


def _with_text_keys(value: Any) -> Any:
    """The value with the keys None, True and False as text: Python's own encoder accepts them, msgspec's does not."""
    if isinstance(value, dict):
        return {
            _KEYS[key] if key is None or isinstance(key, bool) else key: _with_text_keys(item)
            for key, item in value.items()
        }
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _check_size(data: bytes, name: str = "output") -> bytes:
    if len(data) > MAX_RESULT_BYTES:
        raise OutputError(
            f"{name} is {len(data) / MIB:.1f} MiB of JSON; a job service takes at most {MAX_RESULT_BYTES // MIB} MiB: "
            "save large parts as files with job.save"
        )
    return data


def _plain(value: Any) -> Any:
    """Turn single numbers of numpy and torch, and objects of subclasses, into Python's; refuse everything else."""
    kind: Any
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(type(value).__name__)


def _plain_error(value: Any) -> Any:
    if isinstance(value, BaseException):
        return encodable(f"{type(value).__name__}: {_text_of(value)}")
    return _plain(value)


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_error_encoder = msgspec.json.Encoder(enc_hook=_plain_error)


def _describe(value: Any, name: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{name} contains itself, or is nested too deeply for JSON"
    path, item = first_unserialisable(value, name)
    path = shorten(path, MAX_PATH_BYTES)
    if isinstance(item, str):
        return f"{path} is a str that is not valid Unicode ({error}); return text, or save files with job.save"
    kind = type(item)
    full = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(item, dict):
        keys = sorted({type(key).__name__ for key in item})
        if keys == ["str"]:
            return f"{path} is a {full} with a key that is not valid Unicode ({error})"
        return f"{path} is a {full} with keys of type {', '.join(keys)}; keys of JSON objects are strings"
    return f"{path} is {'an' if full[0] in 'aeio' else 'a'} {full}; return JSON values, or save files with job.save"


def first_unserialisable(value: Any, path: str) -> tuple[str, Any]:
    """The path and value of the innermost item that cannot be encoded."""
    for step, item in _items(value):
        try:
            _encoder.encode(item)
        except Exception:
            return first_unserialisable(item, path + step)
    return path, value


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields: Iterable[str] = getattr(value, "__dataclass_fields__", getattr(value, "__struct_fields__", ()))
    return [(f".{field}", getattr(value, field)) for field in fields]
