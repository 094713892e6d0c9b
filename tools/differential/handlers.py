"""The handlers, in one file written for RunPod's SDK: `python handlers.py WORKER`. Both SDKs run it unchanged.

A job's id is the name of its case. `WORKERS` lists the cases of each worker, and how it starts.
"""

import asyncio
import dataclasses
import datetime
import functools
import os
import sys
import time


class Custom(Exception):
    """An error of the user's own."""


@dataclasses.dataclass
class Point:
    x: int
    y: int


def raising(error):
    def case(job):
        raise error

    return case


def chained(job):
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("outer") from error


def returning(value):
    return lambda job: value


async def coroutine_value(job):
    await asyncio.sleep(0)
    return {"echo": job["input"]}


async def coroutine_raises(job):
    await asyncio.sleep(0)
    raise ValueError("in a coroutine")


async def coroutine_cancels_itself(job):
    raise asyncio.CancelledError


def progress_slow(job):
    import runpod

    for step in ("one", {"step": 2}, 3):
        runpod.serverless.progress_update(job, step)
        time.sleep(0.4)
    return "done"


def progress_falsy(job):
    import runpod

    for step in (None, 0, ""):
        runpod.serverless.progress_update(job, step)
        time.sleep(0.4)
    return "done"


def progress_burst(job):
    import runpod

    for step in range(8):
        runpod.serverless.progress_update(job, step)
    return "done"


def progress_of_a_copy(job):
    import runpod

    runpod.serverless.progress_update({"id": job["id"]}, "by id")
    time.sleep(0.4)
    return "done"


def progress_not_json(job):
    import runpod

    runpod.serverless.progress_update(job, object())
    time.sleep(0.2)
    return "done"


SHARED = {"error": "only once", "kept": 1}

CASES = {
    # what handlers return
    "object": returning({"a": 1, "b": [1, 2.5, None, True]}),
    "string": returning("text"),
    "number": returning(12),
    "float": returning(0.1 + 0.2),
    "large-integer": returning(2**70),
    "true": returning(True),
    "false": returning(False),
    "null": returning(None),
    "zero": returning(0),
    "empty-string": returning(""),
    "empty-list": returning([]),
    "empty-object": returning({}),
    "list": returning([{"a": 1}, "b"]),
    "tuple": returning((1, 2)),
    "integer-keys": returning({1: "a"}),
    "other-keys-of-python": returning({"deep": [{None: 1, True: 2, 1.5: 3}]}),
    "unicode": returning({"ключ": "væ 日本 🚀 \u2028 \x07"}),
    "output-key": returning({"output": {"a": 1}}),
    "status-key": returning({"status": "IN_PROGRESS", "a": 1}),
    "big": returning("x" * 3_000_000),
    "awaitable": coroutine_value,
    "nan": returning({"x": float("nan"), "y": float("inf")}),
    "set": returning({"deep": [{1}]}),
    "bytes": returning(b"raw"),
    "any-object": returning({"a": [1, object()]}),
    "datetime": returning({"at": datetime.datetime(2026, 8, 1, 12, 30)}),
    "dataclass": returning(Point(1, 2)),
    "half-a-character": returning("\ud800"),
    # errors
    "error-string": returning({"error": "no such model"}),
    "error-and-more": returning({"error": "half of it", "done": 3}),
    "error-object": returning({"error": {"code": 7}}),
    "error-number": returning({"error": 7}),
    "error-empty": returning({"error": "", "a": 1}),
    "error-null": returning({"error": None}),
    "error-shared": lambda job: SHARED,
    "error-shared-again": lambda job: SHARED,
    "raises": raising(ValueError("bad prompt")),
    "raises-unicode": raising(ValueError("bøøm 🚀")),
    "raises-custom": raising(Custom("mine", 2)),
    "raises-nothing": raising(RuntimeError()),
    "raises-chained": chained,
    # input
    "input-echo": lambda job: job["input"],
    "input-null": lambda job: {"got": job["input"]},
    "input-string": lambda job: {"got": job["input"]},
    "input-list": lambda job: {"got": job["input"]},
    "input-empty": lambda job: {"got": job["input"]},
    "input-big": lambda job: len(job["input"]["text"]),
    "input-missing": lambda job: "never reached",
    "other-keys": lambda job: job,
    "job-changed": lambda job: (job.update(added=1), {"keys": sorted(job)})[1],
    # progress
    "progress": progress_slow,
    "progress-falsy": progress_falsy,
    "progress-burst": progress_burst,
    "progress-of-a-copy": progress_of_a_copy,
    "progress-not-json": progress_not_json,
    # coroutines
    "co-value": coroutine_value,
    "co-error": returning({"error": "no", "a": 1}),
    "co-null": returning(None),
    "co-raises": coroutine_raises,
    "co-timeout": raising(TimeoutError()),
    "co-cancelled": coroutine_cancels_itself,
    # a worker of their own
    "refresh-returned": returning({"refresh_worker": True, "a": 1}),
    "refresh-configured": returning({"a": 1}),
    "exits": raising(SystemExit(3)),
    "dies": lambda job: os._exit(4),
}

STREAMS = {
    "values": ["a", {"b": 1}, 3],
    "falsy": [None, 0, "", [], {}],
    "unicode": ["væ", "日本", "🚀"],
    "nothing": [],
    "big": ["x" * 500_000],
    "huge": ["x" * 3_000_000, "and more"],
    "error": ["a", {"error": "enough"}, "never"],
    "error-object": ["a", {"error": {"code": 7}}, "never"],
    "raises": ["a", ValueError("in the stream")],
    "raises-first": [ValueError("at once")],
    "set": ["a", {1}, "b"],
}


def streamed(job):
    for value in STREAMS[job["id"].partition(".")[2]]:
        if isinstance(value, Exception):
            raise value
        yield value


def function(job):
    return CASES[job["id"]](job)


async def coroutine(job):
    value = CASES[job["id"]](job)
    return await value if asyncio.iscoroutine(value) else value


def generator(job):
    yield from streamed(job)


async def async_generator(job):
    for value in streamed(job):
        await asyncio.sleep(0)
        yield value


class Callable:
    def __call__(self, job):
        yield from ("from", "a", "callable")


class AsyncCallable:
    async def __call__(self, job):
        return "from a callable"


def decorated(handler):
    @functools.wraps(handler)
    def wrapper(job):
        return handler(job)

    return wrapper


def partly(prefix, job):
    yield prefix
    yield job["id"]


def some(*names):
    return [name for name in CASES if name.startswith(names)]


PLAIN = list(CASES)
VALUES = PLAIN[: PLAIN.index("nan")]
WORKERS = {
    "values": ({"handler": function}, VALUES[:10]),
    "more-values": ({"handler": function}, VALUES[10:]),
    "unsendable": ({"handler": function}, PLAIN[PLAIN.index("nan") : PLAIN.index("error-string")]),
    "errors": ({"handler": function}, some("error-", "raises")),
    "input": ({"handler": function}, some("input-", "other-", "job-")),
    "progress": ({"handler": function}, some("progress")),
    "coroutine": ({"handler": coroutine}, some("co-")),
    "generator": ({"handler": generator}, [f"gen.{name}" for name in STREAMS]),
    "async-generator": ({"handler": async_generator}, ["agen.values", "agen.error", "agen.raises"]),
    "aggregate": (
        {"handler": generator, "return_aggregate_stream": True},
        ["agg.values", "agg.nothing", "agg.error", "agg.raises"],
    ),
    "async-aggregate": ({"handler": async_generator, "return_aggregate_stream": True}, ["aagg.values", "aagg.raises"]),
    "partial": ({"handler": functools.partial(partly, "first")}, ["partial"]),
    "partial-function": ({"handler": functools.partial(lambda prefix, job: prefix + job["id"], "a ")}, ["partial-f"]),
    "callable": ({"handler": Callable()}, ["callable"]),
    "async-callable": ({"handler": AsyncCallable()}, ["async-callable"]),
    "decorated": ({"handler": decorated(partly.__get__("first"))}, ["decorated"]),
    "refresh-returned": ({"handler": function}, ["refresh-returned"]),
    "refresh-configured": ({"handler": function, "refresh_worker": True}, ["refresh-configured"]),
    "refresh-stream": ({"handler": generator, "refresh_worker": True}, ["refresh.values"]),
    "exits": ({"handler": function}, ["exits"]),
    "dies": ({"handler": function}, ["dies"]),
    "modifier": (
        {"handler": coroutine, "concurrency_modifier": lambda current: 3},
        ["co-value", "co-null", "co-error"],
    ),
}

INPUTS = {
    "input-null": None,
    "input-string": "text",
    "input-list": [1, 2],
    "input-empty": {},
    "input-echo": {"prompt": "væ 日本 🚀", "n": 1.0, "deep": [{"a": None}]},
    "input-big": {"text": "x" * 2_000_000},
}


def job_object(name):
    job = {"id": name, "input": INPUTS.get(name, {"case": name})}
    if name == "input-missing":
        del job["input"]
    if name == "other-keys":
        job |= {"webhook": "https://example.com/hook", "s3Config": {"bucketName": "b"}, "extra": [1]}
    return job


if __name__ == "__main__":
    import runpod

    runpod.serverless.start(WORKERS[sys.argv[1]][0])
