"""The scenarios in the order of the table, with the targets of their figures."""

from __future__ import annotations

from benchmarks import scenarios as s
from benchmarks.scenarios import Scenario

NOOP_SYNC = s.backlog("noop", 40_000)
NOOP_8 = s.backlog("noop_async", 80_000, 8)
NOOP_32 = s.backlog("noop_async", 80_000, 32)
SLOW_NET = {"delay": 0.020}

PLAN = [
    Scenario("no-op, sync, 1 slot, backlog", NOOP_SYNC, {"jobs/s": (">=", 2500)}, floor="pipelined"),
    Scenario("no-op, async, 8 slots, backlog", NOOP_8, {"jobs/s": (">=", 5000)}, floor="pipelined"),
    Scenario("no-op, async, 32 slots, backlog", NOOP_32, {"jobs/s": (">=", 5000)}, floor="pipelined"),
    Scenario(
        "50 ms, sync, backlog",
        s.busy_device("sleep", 0.05, 200),
        {"busy %": (">=", 99), "taken->done p50 ms": ("<=", 75)},
        floor="pipelined",
    ),
    Scenario(
        "50 ms, sync, backlog, 20 ms added to each reply",
        s.busy_device("sleep", 0.05, 200, **SLOW_NET),
        {"busy %": (">=", 99), "taken->done p50 ms": ("<=", 115)},
        floor="pipelined",
    ),
    Scenario(
        "one 3 s job among 0.1 s jobs, 8 slots", s.one_long_among_short, {"busy %": (">=", 99)}, floor="pipelined"
    ),
    Scenario("idle worker, one job", s.wake_up(), {"enqueued->starts p50 ms": ("<=", 1.2)}, floor="sequential"),
    Scenario(
        "stream, one post per chunk",
        s.stream(),
        {"chunks/s": (">=", 4600), "take->first chunk p50 ms": ("<=", 1)},
        floor="sequential",
    ),
    Scenario(
        "stream, chunks per post agreed", s.stream(extensions=True), {"chunks/s": (">=", 50_000)}, reference=False
    ),
    Scenario(
        "stream, agreed, 20 ms added to each reply",
        s.stream(extensions=True, **SLOW_NET),
        {"chunks/s": (">=", 10_000)},
        reference=False,
    ),
    Scenario("stream, one post per chunk, 20 ms added", s.stream(**SLOW_NET), {}, floor="sequential"),
    Scenario("1 MB outputs", s.big_outputs, {"jobs/s": (">=", 600)}, floor="pipelined"),
    Scenario("8 MB inputs", s.big_inputs, {"jobs/s": (">=", 60)}, floor="pipelined"),
    Scenario(
        "100 progress updates",
        s.progress,
        {"handler's time p50 ms": ("<=", 2), "out of order": ("<=", 0), "after the result": ("<=", 0)},
    ),
    Scenario("stop of a sync time.sleep(30)", s.stop("sleep"), {"stop->slot runs the next p50 ms": ("<=", 50)}),
    Scenario("stop of an async sleep(30)", s.stop("sleep_async"), {"stop->slot runs the next p50 ms": ("<=", 20)}),
    Scenario("SIGTERM when idle", s.idle_exit, {"SIGTERM->exit ms": ("<=", 200)}),
    Scenario("process start", s.start_up, {"start->first take ms": ("<=", 400)}, floor="sequential"),
]
