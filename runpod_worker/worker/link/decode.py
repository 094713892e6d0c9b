"""Reads the jobs in a reply, without their inputs, which the executor parses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from runpod_worker.core.dispatch.values import Assignment
from runpod_worker.core.errors import LinkDown
from runpod_worker.core.nesting import MAX_REPLY_DEPTH, check_depth
from runpod_worker.log import log


class _Plain(msgspec.Struct):
    id: str | int
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Extended(msgspec.Struct):
    id: str
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt: int | None = None
    timeoutMs: float | None = None  # noqa: N815 - the wire's name


LARGE_BYTES = 64 * 1024
"""For larger jobs, parse only the fields before `input`."""

_INPUT = b'"input":'

_plain = msgspec.json.Decoder(_Plain)
_extended = msgspec.json.Decoder(_Extended)
_array = msgspec.json.Decoder(list[msgspec.Raw])


_Head = TypeVar("_Head", _Plain, _Extended)


def assignments(body: bytes, *, extended: bool) -> list[Assignment]:
    """Return the jobs in the reply to a take: a job object, or an array of them.

    `extended`: the service counts attempts. A malformed job is logged and skipped, because a report needs its id.

    Raises:
        LinkDown: the reply is nested too deep.
    """
    check_depth(body, LinkDown, MAX_REPLY_DEPTH)
    start = body.lstrip()[:1]
    if not start:
        return []
    if start != b"[":
        return _readable([body], extended)
    try:
        return _readable([bytes(raw) for raw in _array.decode(body)], extended)
    except msgspec.MsgspecError as error:
        log.error("take.malformed", extra={"error": str(error)})
        return []


def _readable(bodies: Sequence[bytes], extended: bool) -> list[Assignment]:
    jobs = []
    for body in bodies:
        try:
            jobs.append(_assignment(body, extended))
        except msgspec.MsgspecError as error:
            log.error("take.malformed", extra={"error": f"not a job: {error}"})
    return jobs


def _assignment(body: bytes, extended: bool) -> Assignment:
    if not extended:
        plain = _before_input(body, _plain) or _plain.decode(body)
        return Assignment(id=str(plain.id), body=body, error=_input_error(plain.input))
    head = _before_input(body, _extended)
    if head is None or head.attempt is None or head.timeoutMs is None:
        head = _extended.decode(body)
    timeout_s = None if head.timeoutMs is None else head.timeoutMs / 1000
    return Assignment(id=head.id, body=body, attempt=head.attempt, timeout_s=timeout_s, error=_input_error(head.input))


def _before_input(body: bytes, decoder: msgspec.json.Decoder[_Head]) -> _Head | None:
    """Return the head of a large job if all of it comes before the input."""
    if len(body) <= LARGE_BYTES:
        return None
    end = body.find(_INPUT, 0, LARGE_BYTES)
    try:
        return decoder.decode(body[:end] + _INPUT + b"null}") if end > 0 else None
    except msgspec.MsgspecError:  # the key of another object, or the id comes after the input
        return None


def _input_error(value: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return "the job has no `input`: expected a key `input` with any JSON value" if value is msgspec.UNSET else None
