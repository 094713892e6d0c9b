"""Process 1 of a container inherits what others leave behind."""

import subprocess
import sys
import textwrap

SCRIPT = """
import asyncio, ctypes, os, sys, time
from pathlib import Path
from runpod_worker.worker.agent.process import Spawned, reap_orphans

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans come to this process

def children():
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]

def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, children()
        time.sleep(0.01)

async def life(executor, code):
    died = asyncio.Event()
    sock = executor.start(died.set)
    await asyncio.wait_for(died.wait(), 30)
    sock.close()
    assert executor.exit_code == code, executor.exit_code

ORPHANS = "; ".join([
    "import os, time",
    "leave = lambda n: os.fork() or (time.sleep(n / 50), os._exit(0))",
    "[os.fork() or (leave(n), os._exit(0)) for n in range(20)]",
    "os._exit(7)",
])

async def main():
    executor = Spawned([sys.executable, "-c", ORPHANS], dict(os.environ))
    executor.launch()
    reap_orphans(executor.collect)
    for _ in range(3):
        await life(executor, 7)
        until(lambda: not children())  # none at all: where the reaper used to end
    print("reaped")

asyncio.run(main())
"""


def test_orphans_are_reaped_also_after_a_moment_without_any_child() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, timeout=90, check=False
    )

    assert (done.stdout, done.returncode) == ("reaped\n", 0), done.stderr
