"""Values that no encoder likes, returned, yielded, raised, reported, logged and saved by handlers in a real process.

Each ends its own job within seconds, with a text of a bounded length, and the next job is well.
"""

import asyncio
import json

import pytest

from runpod_worker.core.dispatch.messages import Done
from runpod_worker.core.protocol import MAX_RESULT_BYTES
from runpod_worker.worker.executor.results import MAX_ERROR_BYTES

MAX_S = 10.0
"""Seconds. No value takes longer, even on a busy machine."""

KINDS = {
    "function": "def handler(job): return do(job)",
    "coroutine": "async def handler(job): return do(job)",
    "generator": "def handler(job): yield do(job)",
    "async_generator": "async def handler(job): yield do(job)",
}

HANDLER = r"""
import collections, contextlib, dataclasses, datetime, decimal, enum, math, uuid
import numpy as np

BAD = b"caf\xe9".decode(errors="surrogateescape")

def deep(depth, make):
    value = 1
    for _ in range(depth):
        value = make(value)
    return value

def itself():
    value = []
    value.append(value)
    return value

class Lies(dict):
    def items(self): raise RuntimeError("no items")

class BadRepr:
    def __repr__(self): raise RuntimeError("no repr")
    def __getattr__(self, name): raise RuntimeError("no " + name)

class Str(str): ...
class Int(int): ...
class Colour(enum.Enum): RED = BAD
@dataclass
class Point:
    x: object

MAKE = {
    "surrogate": lambda: BAD,
    "surrogate in dict": lambda: {"a": [BAD]},
    "surrogate key": lambda: {BAD: 1},
    "surrogate error": lambda: {"error": BAD},
    "surrogate error key": lambda: {"error": {BAD: BAD}},
    "surrogate in a path": lambda: {"a" + BAD: object()},
    "surrogate in str subclass": lambda: Str(BAD),
    "error exception": lambda: {"error": ValueError("the reason")},
    "error exception bad": lambda: {"error": ValueError(BAD)},
    "error exception inside": lambda: {"error": {"why": ValueError("the reason")}},
    "range": lambda: range(3),
    "dict view": lambda: {1: 2}.keys(),
    "error bytes": lambda: {"error": b"x\xff"},
    "error set": lambda: {"error": {1}},
    "error object": lambda: {"error": object()},
    "nan": lambda: [math.nan, math.inf],
    "bytes": lambda: b"\xff\x00",
    "big int": lambda: 10 ** 30,
    "huge int": lambda: 10 ** 5000,
    "negative big int": lambda: -(2 ** 64),
    "big int in dict": lambda: {"a": 2 ** 70},
    "set": lambda: {1, 2},
    "datetime": lambda: datetime.datetime(2026, 1, 1),
    "decimal": lambda: decimal.Decimal("1.5"),
    "uuid": lambda: uuid.UUID(int=5),
    "enum": lambda: Colour.RED,
    "dataclass": lambda: Point(1),
    "dataclass bad": lambda: Point(BAD),
    "dataclass deep": lambda: deep(10_000, Point),
    "numpy scalar": lambda: np.float32(0.5),
    "numpy int": lambda: {"a": np.int64(5)},
    "numpy nan": lambda: np.float64("nan"),
    "numpy array": lambda: np.zeros(3),
    "numpy big array": lambda: np.zeros(3_000_000),
    "numpy str": lambda: np.str_(BAD),
    "numpy datetime": lambda: np.datetime64("2026-01-01"),
    "numpy complex": lambda: np.complex64(1j),
    "itself": itself,
    "itself in dict": lambda: {"a": itself()},
    "deep list": lambda: deep(10_000, lambda value: [value]),
    "deep list 900": lambda: deep(900, lambda value: [value]),
    "deep list 300": lambda: deep(300, lambda value: [value]),
    "deep list 100000": lambda: deep(100_000, lambda value: [value]),
    "deep dict": lambda: deep(10_000, lambda value: {"a": value}),
    "deep tuple": lambda: deep(10_000, lambda value: (value,)),
    "deep error": lambda: {"error": deep(10_000, lambda value: [value])},
    "deep with bad leaf": lambda: deep(500, lambda value: [value, {1: object()}]),
    "wide with bad leaf": lambda: {"a": [[1] * 1000 for _ in range(1000)] + [object()]},
    "int keys": lambda: {1: 2},
    "tuple keys": lambda: {(1, 2): 2},
    "mixed keys": lambda: {None: 1, True: 2, "a": 3, 1.5: 4},
    "lying dict": lambda: Lies(a=1),
    "bad repr": lambda: BadRepr(),
    "bad repr key": lambda: {BadRepr(): 1},
    "complex": lambda: 1j,
    "function": lambda: print,
    "class": lambda: int,
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "counter": lambda: collections.Counter("aab"),
    "deque": lambda: collections.deque([1]),
    "ordered": lambda: collections.OrderedDict(a=1),
    "mapping proxy": lambda: type("T", (), {}).__dict__,
    "chain map": lambda: collections.ChainMap({"a": 1}),
    "namedtuple": lambda: collections.namedtuple("N", "a")(1),
    "null char": lambda: "\0",
    "too large": lambda: "x" * (21 * 2 ** 20),
    "200 MB": lambda: "x" * 200_000_000,
    "error 30 MB": lambda: {"error": "x" * 30_000_000},
    "module": lambda: sys,
    "exception": lambda: ValueError("returned"),
    "exception class": lambda: ValueError,
    "not implemented": lambda: NotImplemented,
    "ellipsis": lambda: ...,
    "str subclass": lambda: Str("a"),
    "int subclass": lambda: Int(5),
    "thread": lambda: threading.current_thread(),
    "lock": lambda: threading.Lock(),
}
class Chained(Exception): ...
class BadStr(Exception):
    def __str__(self): return 5
class BadHash(Exception):
    __hash__ = None
class Exits(Exception):
    def __str__(self): raise SystemExit(4)
class Interrupts(Exception):
    def __str__(self): raise KeyboardInterrupt
class BadMeta(type):
    def __str__(cls): raise RuntimeError("no str")
    __repr__ = __str__
class MetaError(Exception, metaclass=BadMeta): ...
BadName = type("Bad", (Exception,), {"__module__": BAD})

def chain(count):
    error = None
    for number in range(count):
        new = Chained(f"number {number}")
        new.__cause__ = error
        error = new
    return error

def cycle():
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    return a

def recurse(): recurse()
def mutual(n): return mutual2(n + 1)
def mutual2(n): return mutual(n + 1)
def far(limit):
    sys.setrecursionlimit(limit)
    recurse()

def group(count, depth):
    error = ValueError("leaf")
    for _ in range(depth):
        error = ExceptionGroup("group", [error] * count)
    return error

def raising(error): raise error

def noted():
    error = ValueError("noted")
    error.add_note("n" * 30_000_000)
    raise error

RAISE = {
    "surrogate": lambda: raising(ValueError(BAD)),
    "oserror": lambda: open(BAD),
    "25 MB": lambda: raising(KeyError("x" * 25_000_000)),
    "25 MB unicode": lambda: raising(KeyError("\u20ac" * 8_000_000)),
    "30 MB note": noted,
    "bad note": lambda: (lambda e: (setattr(e, "__notes__", 5), raising(e)))(ValueError("x")),
    "recursion": recurse,
    "mutual": lambda: mutual(0),
    "far recursion": lambda: far(50_000),
    "chain": lambda: raising(chain(5000)),
    "long chain": lambda: raising(chain(100_000)),
    "cycle": lambda: raising(cycle()),
    "wide group": lambda: raising(group(3, 9)),
    "deep group": lambda: raising(group(1, 2000)),
    "bad str": lambda: raising(BadStr()),
    "exits in str": lambda: raising(Exits()),
    "interrupts in str": lambda: raising(Interrupts()),
    "meta": lambda: raising(MetaError()),
    "bad name": lambda: raising(BadName("x")),
    "bad hash": lambda: raising(BadHash("x")),
    "base": lambda: raising(BaseException("base")),
    "exit": lambda: sys.exit(3),
    "exit text": lambda: sys.exit(BAD),
    "keyboard": lambda: raising(KeyboardInterrupt()),
    "generator exit": lambda: raising(GeneratorExit()),
    "stop iteration": lambda: raising(StopIteration(5)),
    "stop async": lambda: raising(StopAsyncIteration(5)),
    "cancelled": lambda: raising(asyncio.CancelledError("x")),
    "job stopped": lambda: raising(JobStopped("x")),
    "input error surrogate": lambda: raising(InputError(BAD)),
    "input error 30 MB": lambda: raising(InputError("x" * 30_000_000)),
    "memory": lambda: bytearray(2 ** 62),
    "syntax": lambda: compile("x = (" + BAD, BAD, "exec"),
    "huge source line": lambda: exec(compile("raise ValueError(1)" + " " * 5_000_000, "x", "exec")),
    "unicode error": lambda: BAD.encode(),
    "raise class": lambda: raising(ValueError),
    "raise none": lambda: raising(None),
    "not an exception": lambda: raising(5),
    "args object": lambda: raising(ValueError(BadRepr())),
}

def do(job):
    what, name = job["input"]["do"], job["input"].get("name")
    if what == "return": return MAKE[name]()
    if what == "raise": return RAISE[name]()
    if what == "progress": job.progress(MAKE[name]()); return "ok"
    if what == "metric": job.metric(BAD, 1); return "ok"
    if what == "log": job.log.info(BAD, extra={BAD: MAKE[name]()}); return "ok"
    if what == "save": return job.save(b"x", MAKE[name]())
    if what == "names": return {
        "return": list(MAKE), "raise": list(RAISE), "progress": list(MAKE), "log": list(MAKE), "save": list(MAKE),
    }
    return "ok"
"""


TEXTS = {
    ("return", "surrogate"): "output is a str that is not valid Unicode",
    ("return", "surrogate key"): "output is a dict with a key that is not valid Unicode",
    ("return", "surrogate error"): "caf?",
    ("return", "surrogate in a path"): "output.acaf? is an object",
    ("return", "error exception"): "ValueError: the reason",
    ("return", "error exception bad"): "ValueError: caf?",
    ("return", "error exception inside"): '{"why":"ValueError: the reason"}',
    ("return", "itself"): "output contains itself, or is nested too deeply",
    ("return", "deep list"): "output contains itself, or is nested too deeply",
    ("return", "range"): "output is a range",
    ("return", "200 MB"): "output is 190.7 MiB of JSON; a job service takes at most 20 MiB",
    ("progress", "200 MB"): "progress is 190.7 MiB of JSON; a job service takes at most 20 MiB",
    ("progress", "surrogate"): "progress is a str that is not valid Unicode",
    ("raise", "25 MB"): "<class 'KeyError'>",
    ("raise", "bad name"): "<class 'caf?.Bad'>",
    ("raise", "meta"): "<class '__main__.MetaError'>",
    ("raise", "input error surrogate"): "caf?",
}

HEAVY = {
    *("numpy big array", "deep list 100000", "wide with bad leaf", "too large", "200 MB", "error 30 MB"),
    *("25 MB", "25 MB unicode", "30 MB note", "input error 30 MB", "far recursion", "long chain", "wide group"),
}
"""Values that cost most of the time. All kinds encode them by the same code, but chunks, which have their own."""


def is_sent(kind: str, how: str, name: str) -> bool:
    """Functions get every value, generators also yield and raise the heavy ones, and the others get the light ones."""
    return name not in HEAVY or kind == "function" or (kind == "generator" and how in ("return", "raise"))


@pytest.mark.parametrize("kind", KINDS)
async def test_every_value_ends_its_job_and_no_other(start_process, kind):
    executor = start_process(
        f"{HANDLER}\n@worker.handler(aggregate=True)\n{KINDS[kind]}\n", RUNPOD_LOG_LEVEL="CRITICAL"
    )
    await executor.ready()
    listed = await executor.output("names", {"do": "names"})
    names = listed if isinstance(listed, dict) else listed[0]
    hows = ("return", "raise", "progress", "log", "save")
    cases = [(how, name) for how in hows for name in names[how] if is_sent(kind, how, name)]

    for number, case in enumerate(cases):
        executor.run(f"{number}", {"do": case[0], "name": case[1]}, files_url="http://127.0.0.1/files")
        executor.run(f"{number} next", {"do": "ok"})
        done = await asyncio.wait_for(executor.until(Done, f"{number}"), MAX_S)
        after = await asyncio.wait_for(executor.until(Done, f"{number} next"), MAX_S)

        assert after.error is None, case
        assert len(done.output or b"") <= MAX_RESULT_BYTES, case
        assert len(done.error or "") <= MAX_ERROR_BYTES + 100, case
        if case[0] == "raise" and done.error.startswith("{"):
            assert {"error_type", "error_message", "error_traceback"} <= json.loads(done.error).keys(), case
        if case in TEXTS and not ("generator" in kind and case[0] == "return"):
            assert TEXTS[case] in done.error, case
