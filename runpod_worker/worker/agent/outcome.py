"""Encodes the report of an outcome (protocol B.6, docs/extensions.md)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from runpod_worker.core.dispatch.values import Outcome, Timings

STOPPED = b'{"stopped":true}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """The durations of this worker's start, for its first outcome."""

    load_s: float
    startup_s: float


def outcome_body(outcome: Outcome, timings: bytes | None = None) -> bytes:
    """Return the outcome as JSON, without fields that are None. `timings` is JSON."""
    if outcome.stopped:
        return STOPPED
    # Join once, because an output may be large, and each `+` would copy it.
    parts = [b"{"]
    if outcome.output is not None:
        parts += [b'"output":', outcome.output, b","]
    if outcome.error is not None:
        parts += [b'"error":', msgspec.json.encode(outcome.error), b","]
    if outcome.refresh:
        parts += [b'"stopPod":true', b","]
    if timings is not None:
        parts += [b'"timings":', timings, b","]
    if len(parts) > 1:
        parts.pop()
    return b"".join([*parts, b"}"])


def timings_json(timings: Timings, taken_at: float, startup: Startup | None) -> bytes:
    """Return the durations since the take in milliseconds, and those of the worker's start in seconds."""
    fields = {
        "inputReady": _ms(timings.input_ready, taken_at),
        "started": _ms(timings.started, taken_at),
        "finished": _ms(timings.finished, taken_at),
        "encoded": _ms(timings.encoded, taken_at),
    }
    if timings.first_chunk is not None:
        fields["firstChunk"] = _ms(timings.first_chunk, taken_at)
    if startup is not None:
        fields |= {"loadS": round(startup.load_s, 3), "startupS": round(startup.startup_s, 3)}
    return msgspec.json.encode(fields)


def _ms(at: float, since: float) -> float:
    return round((at - since) * 1000, 3)
