"""The cases in which we say something else than RunPod's SDK, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A reason, and the cases it explains."""

    title: str
    reason: str
    cases: tuple[str, ...]


DIFFERENCES = (
    Difference(
        "An exception names one version more",
        "`runpod_version` is the version of the SDK whose protocol is spoken; `runpod_worker_version` is the one that "
        "ran. The traceback begins at the handler's first frame instead of the SDK's own.",
        ("raises", "raises-unicode", "raises-custom", "raises-nothing", "raises-chained", "co-raises", "co-timeout"),
    ),
    Difference(
        "A generator that raises says what a function says",
        "The SDK sends plain text for generators and JSON for functions; whoever reads errors needs one form. Where "
        "the output is aggregated, what was yielded before is kept; the SDK throws it away.",
        ("gen.raises", "gen.raises-first", "agen.raises", "agg.raises", "aagg.raises"),
    ),
    Difference(
        "A yielded error keeps what was yielded before it",
        "With `return_aggregate_stream` the SDK drops all chunks from the output when the last one is an error.",
        ("agg.error",),
    ),
    Difference(
        "An error is always a string",
        "The platform takes a job for COMPLETED, without output, when its `error` is not a string "
        "(runpod-python#299). Other errors are sent as JSON, not as Python's `repr`.",
        ("error-object", "error-number", "gen.error-object"),
    ),
    Difference(
        "What a handler returns is not changed",
        "The SDK removes `error` and `refresh_worker` from the handler's own dict: a handler that returns a shared one "
        "fails the first time and succeeds the second.",
        ("error-shared-again",),
    ),
    Difference(
        "Output that the SDK cannot send is sent, or fails the job at once",
        "The SDK logs an error and says nothing: the job hangs until its lease is over and is then run again. Here "
        "sets become arrays, dates ISO strings, bytes base64, dataclasses objects; what cannot be JSON fails the job, "
        "and the error names the place in the output.",
        ("set", "bytes", "datetime", "dataclass", "any-object", "half-a-character", "gen.set"),
    ),
    Difference(
        "NaN and infinity become null",
        "JSON has neither. What the SDK sends is not JSON, and clients in other languages cannot read it.",
        ("nan",),
    ),
    Difference(
        "Generators are recognised behind callable objects and decorators",
        "The SDK looks at the bare object only: the generator itself becomes the output, cannot be sent, and the job "
        "hangs.",
        ("callable", "decorated"),
    ),
    Difference(
        "Progress: the latest counts",
        "The SDK sends every update from a thread of its own: they arrive in any order, some after the result. Here "
        "they arrive in order, none after the result, and one that is overtaken before it was sent is left out.",
        ("progress-burst",),
    ),
    Difference(
        "A job without input fails",
        "The SDK raises where nobody sees it: the job hangs until its lease is over.",
        ("input-missing",),
    ),
    Difference(
        "Whatever ends a handler, its job is reported",
        "`SystemExit` and `CancelledError` pass through the SDK, and so does the end of the process: nothing is said "
        "about the job. Here it fails, with what happened; after `SystemExit` the worker goes on.",
        ("exits", "dies", "co-cancelled"),
    ),
)


def listed() -> dict[str, Difference]:
    """The difference that explains each case."""
    return {case: one for one in DIFFERENCES for case in one.cases}
