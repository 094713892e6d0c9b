"""The cases in which our requests differ from those of RunPod's SDK, and why."""

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
        "An exception names our version too",
        "`runpod_version` is the SDK whose protocol is used; `runpod_worker_version` is the package that ran. The "
        "traceback begins at the handler's first frame, not at the SDK's.",
        ("raises", "raises-unicode", "raises-custom", "raises-nothing", "raises-chained", "co-raises", "co-timeout"),
    ),
    Difference(
        "A generator that raises reports the same error as a function",
        "The SDK sends plain text for generators and JSON for functions. Here both send JSON, so that a program can "
        "read errors in one way. With an aggregated output, the chunks before the error are kept; the SDK drops them.",
        ("gen.raises", "gen.raises-first", "agen.raises", "agg.raises", "aagg.raises"),
    ),
    Difference(
        "A yielded error keeps the chunks before it",
        "With `return_aggregate_stream` the SDK drops all chunks from the output when the last is an error.",
        ("agg.error",),
    ),
    Difference(
        "An error is always a string",
        "The platform treats a job whose `error` is not a string as COMPLETED without output (runpod-python#299). "
        "Here other values are sent as JSON in a string, not as Python's `repr`.",
        ("error-object", "error-number", "gen.error-object"),
    ),
    Difference(
        "A returned dict is not changed",
        "The SDK removes `error` and `refresh_worker` from the dict that the handler returned. A handler that returns "
        "the same dict twice fails the first time and succeeds the second time.",
        ("error-shared-again",),
    ),
    Difference(
        "Output that the SDK cannot send is converted, or fails the job",
        "The SDK logs an error and reports nothing: the job hangs until its lease expires, and runs again. Here sets "
        "become arrays, dates ISO strings, bytes base64 and dataclasses objects. Any other value that is not JSON "
        "fails the job immediately, and the error names its path in the output.",
        ("set", "bytes", "datetime", "dataclass", "any-object", "half-a-character", "gen.set"),
    ),
    Difference(
        "NaN and infinity become null",
        "JSON has neither. The SDK sends `NaN`, which clients in other languages cannot parse.",
        ("nan",),
    ),
    Difference(
        "Generators are recognised behind callable objects and decorators",
        "The SDK inspects only the outermost object. The generator itself becomes the output, cannot be sent, and the "
        "job hangs.",
        ("callable", "decorated"),
    ),
    Difference(
        "Progress arrives in order, and the latest value counts",
        "The SDK sends each update from a new thread: updates arrive in any order, some after the result. Here they "
        "arrive in order and before the result. An update that is replaced before it is sent is skipped.",
        ("progress-burst",),
    ),
    Difference(
        "A job without input fails",
        "The SDK raises an exception that it does not report: the job hangs until its lease expires.",
        ("input-missing",),
    ),
    Difference(
        "Every end of a handler is reported",
        "The SDK reports nothing when the handler raises `SystemExit` or `CancelledError`, or when its process dies. "
        "Here the job fails with the cause; after `SystemExit` the worker continues.",
        ("exits", "dies", "co-cancelled"),
    ),
)


def listed() -> dict[str, Difference]:
    """The difference that explains each case."""
    return {case: difference for difference in DIFFERENCES for case in difference.cases}
