"""What a job-done says (protocol B.6, docs/extensions.md): the bytes, from what the executor reported."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from runpod_worker.worker.ipc.messages import Timings

STOPPED = b'{"stopped":true}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What the first result of a process tells about its start."""

    load_s: float
    startup_s: float


def result_body(output: bytes | None, error: str | None, stop_pod: bool, timings: bytes | None) -> bytes:
    """The result. `output` and `timings` are JSON; what is None says nothing and is left out."""
    # Put together in one go: an output may be large, and each `+` would copy it.
    parts = [b"{"]
    if output is not None:
        parts += [b'"output":', output, b","]
    if error is not None:
        parts += [b'"error":', msgspec.json.encode(error), b","]
    if stop_pod:
        parts += [b'"stopPod":true', b","]
    if timings is not None:
        parts += [b'"timings":', timings, b","]
    if len(parts) > 1:
        parts.pop()
    return b"".join([*parts, b"}"])


def error_body(error: str) -> bytes:
    """A failure that the executor did not report itself."""
    return b'{"error":' + msgspec.json.encode(error) + b"}"


def timings_json(timings: Timings | None, taken_at: float, startup: Startup | None) -> bytes | None:
    """Durations in milliseconds since the worker took the job, and the process's start in seconds."""
    found: dict[str, float] = {}
    if timings is not None:
        found = {
            "inputReady": _ms(timings.input_ready, taken_at),
            "started": _ms(timings.started, taken_at),
            "finished": _ms(timings.finished, taken_at),
            "encoded": _ms(timings.encoded, taken_at),
        }
        if timings.first_chunk is not None:
            found["firstChunk"] = _ms(timings.first_chunk, taken_at)
    if startup is not None:
        found |= {"loadS": round(startup.load_s, 3), "startupS": round(startup.startup_s, 3)}
    return msgspec.json.encode(found) if found else None


def _ms(at: float, since: float) -> float:
    return round((at - since) * 1000, 3)
