"""What becomes of what a handler returns, yields or raises. Every rule about it lives in this file (protocol B.6, C.2).

1. A dict is looked into: a truthy "error" makes the job fail with it, a truthy "refresh_worker" replaces the worker;
   both keys are left out of the output, and the handler's own dict is not changed.
2. A string is an error verbatim; any other error, and an exception, becomes a string that holds JSON.
3. `{}` means: no output at all. Everything else is the output, `None` included.
4. What cannot be JSON fails the job with the place in the value that cannot. NaN and infinities become null, which is
   all that JSON has for them; numbers of numpy and torch become numbers.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

import runpod_worker.worker
from runpod_worker.core.errors import InputError, OutputError
from runpod_worker.core.protocol import MAX_RESULT_BYTES, MIB, SDK_VERSION

_OWN_CODE = str(Path(runpod_worker.worker.__file__).parent)
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_KEYS = {None: "null", True: "true", False: "false"}
_MARKS = ("error", "refresh_worker")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job's attempt came to. `output` None: there is none."""

    output: bytes | None = None
    error: str | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Where a job ran; told with the error of a job that raised."""

    hostname: str
    worker_id: str


def outcome_of_return(value: Any) -> Outcome:
    """The outcome of a handler that returned `value`; encoded now, because the value may change with the next job."""
    try:
        if not isinstance(value, dict):
            return Outcome(_limited(encoded(value)))
        if not any(mark in value for mark in _MARKS):
            return Outcome(_limited(encoded(value)) if value else None)
        return _marked(value)
    except OutputError as error:
        return Outcome(error=str(error))


def yielded_error(value: Any) -> str | None:
    """The error a yielded value stands for (a dict with a truthy "error"), or None: it is a chunk."""
    if isinstance(value, dict) and value.get("error"):
        return error_text(value["error"])
    return None


def chunk(value: Any) -> bytes:
    """A yielded value as JSON. RunPod's service splits what is over 1 MB by itself.

    Raises:
        OutputError: it is not JSON, or too large for any job service.
    """
    data = encoded(value)
    if len(data) > MAX_RESULT_BYTES:
        raise OutputError(
            f"a chunk of {len(data) / MIB:.1f} MiB of JSON: at most {MAX_RESULT_BYTES // MIB} MiB is taken"
        )
    return data


def outcome_of_stream(chunks: list[bytes] | None, error: str | None = None) -> Outcome:
    """The outcome of a generator: its chunks when they are aggregated, else `[]`; what there was, when it failed."""
    if error is not None and not chunks:
        return Outcome(error=error)
    try:
        return Outcome(_limited(b"[" + b",".join(chunks or ()) + b"]"), error)
    except OutputError as too_large:
        return Outcome(error=error or str(too_large))


def outcome_of_exception(error: BaseException, identity: WorkerIdentity) -> Outcome:
    """The outcome of a handler that raised: the fields the platform's SDK sends, as a string of JSON.

    What the caller did wrong (InputError) and what cannot be sent (OutputError) is said in plain words instead.
    """
    if isinstance(error, InputError | OutputError):
        return Outcome(error=str(error))
    told = {
        "error_type": str(type(error)),
        "error_message": _message(error),
        "error_traceback": traceback_of(error),
        "hostname": identity.hostname,
        "worker_id": identity.worker_id,
        "runpod_version": SDK_VERSION,
        "runpod_worker_version": runpod_worker.__version__,
    }
    return Outcome(error=_encoder.encode(told).decode())


def traceback_of(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    first: TracebackType | None = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        first = first.tb_next
    try:
        lines = traceback.format_exception(type(error), error, first)
    except Exception:
        lines = traceback.format_tb(first)
    return "".join(lines).encode(errors="replace").decode()


def error_text(error: Any) -> str:
    """An error as callers see it: a string as it is, anything else as JSON."""
    return error if isinstance(error, str) else encoded(error, "error").decode()


def encoded(value: Any, name: str = "output") -> bytes:
    """`value` as JSON.

    Raises:
        OutputError: something in it is not JSON; the message says where.
    """
    try:
        return _encoder.encode(value)
    except _UNENCODABLE as error:
        with suppress(*_UNENCODABLE):
            return _encoder.encode(_with_text_keys(value))
        raise OutputError(_explain(value, name, error)) from None


def _with_text_keys(value: Any) -> Any:
    """The value, with keys that Python's own encoder turns into text and ours does not: None, True and False."""
    if isinstance(value, dict):
        return {_text_key(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _text_key(key: Any) -> Any:
    return _KEYS[key] if key is None or isinstance(key, bool) else key


def _marked(value: dict[Any, Any]) -> Outcome:
    rest = {key: item for key, item in value.items() if key not in _MARKS}
    error, refresh = value.get("error"), bool(value.get("refresh_worker"))
    text = error_text(error) if error else None
    return Outcome(_limited(encoded(rest)) if rest else None, text, refresh)


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_RESULT_BYTES:
        raise OutputError(
            f"output is {len(data) / MIB:.1f} MiB of JSON; a job service takes at most {MAX_RESULT_BYTES // MIB} MiB: "
            "save large parts as files with job.save"
        )
    return data


def _number(value: Any) -> Any:
    """numpy's and torch's single numbers as Python's; everything else stays out."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(type(value).__name__)


_encoder = msgspec.json.Encoder(enc_hook=_number)


def _explain(value: Any, name: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{name} contains itself, or is nested too deeply for JSON"
    path, culprit = first_unserialisable(value, name)
    if isinstance(culprit, str):
        return f"{path} is a str that is not valid Unicode ({error}); return text, or save files with job.save"
    kind = type(culprit)
    full = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(culprit, dict):
        keys = sorted({type(key).__name__ for key in culprit})
        return f"{path} is a {full} with keys of type {', '.join(keys)}; keys of JSON objects are strings"
    return f"{path} is {'an' if full[0] in 'aeio' else 'a'} {full}; return JSON values, or save files with job.save"


def first_unserialisable(value: Any, path: str) -> tuple[str, Any]:
    """The innermost value that cannot be encoded, and its path."""
    for step, item in _items(value):
        try:
            _encoder.encode(item)
        except _UNENCODABLE:
            return first_unserialisable(item, path + step)
    return path, value


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields: Iterable[str] = getattr(value, "__dataclass_fields__", getattr(value, "__struct_fields__", ()))
    return [(f".{field}", getattr(value, field)) for field in fields]


def _message(error: BaseException) -> str:
    try:
        return str(error).encode(errors="replace").decode()
    except Exception as broken:
        return f"<the exception's __str__ raised {type(broken).__name__}>"
