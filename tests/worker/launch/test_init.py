"""Process 1 of a container: reaps what others leave behind, forwards signals, exits as its child does."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a Linux container's process 1")

SUPERVISED = """
import ctypes, os, signal, sys, time
from pathlib import Path
from runpod_worker.worker.launch import init

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: orphans come to this process
init.supervise_child()
"""

ORPHANS = """
import os, subprocess, sys, time
from pathlib import Path
command = "import os, time; [os.fork() or (os.fork() or time.sleep(n / 50), os._exit(0)) for n in range(20)]"
subprocess.run([sys.executable, "-c", command], check=True)
deadline = time.monotonic() + 30
init = INIT
children = Path(f"/proc/{init}/task/{init}/children")
while len(children.read_text().split()) > 1:
    assert time.monotonic() < deadline, children.read_text()
    time.sleep(0.01)
"""

COUNTS = """
counts = {number: 0 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
def count(number, frame):
    counts[number] += 1
for number in counts:
    signal.signal(number, count)
print("ready", flush=True)
while not counts[signal.SIGHUP]:
    time.sleep(0.01)
print(f"{counts[signal.SIGINT]} ints, {counts[signal.SIGTERM]} terms", flush=True)
"""


def start(child: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SUPERVISED + child]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def test_orphans_are_reaped_and_the_childs_exit_code_is_ours() -> None:
    with start(ORPHANS.replace("INIT", "os.getppid()") + "sys.exit(7)") as process:
        assert process.wait(60) == 7


def test_a_child_that_a_signal_kills_gives_a_shells_exit_code() -> None:
    with start("os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait(30) == 128 + signal.SIGKILL


def test_signals_reach_the_child_and_never_this_process() -> None:
    with start(COUNTS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        output, _ = process.communicate(timeout=30)

    assert (output, process.returncode) == ("0 ints, 1 terms\n", 0)


def test_a_ctrl_c_at_the_terminal_reaches_the_child_once() -> None:
    ours, theirs = os.openpty()
    output = b""

    def read_until(text: bytes) -> None:
        nonlocal output
        while text not in output:
            assert select.select([ours], [], [], 30)[0], output
            output += os.read(ours, 100)

    with start(COUNTS, stdin=theirs, preexec_fn=lambda: os.login_tty(0)) as process:
        read_until(b"ready")
        os.write(ours, b"\x03")
        read_until(b"^C")
        process.send_signal(signal.SIGHUP)
        read_until(b" ints, ")
        assert process.wait(30) == 0
    os.close(ours)
    os.close(theirs)

    assert b"1 ints, 0 terms" in output


def test_run_as_process_1_reaps_orphans_and_leaves_on_sigterm(tmp_path: Path) -> None:
    unshare = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        *([] if os.getuid() == 0 else ["--map-root-user"]),
    ]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        message = "needs `unshare --pid`"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    handler = tmp_path / "handler.py"
    handler.write_text(ORPHANS.replace("INIT", "1") + "print('reaped', flush=True)\nos.kill(1, 15)\ntime.sleep(60)")
    run = [sys.executable, "-m", "runpod_worker", "run", str(handler), "--url", "http://127.0.0.1:9/v2/e"]

    done = subprocess.run([*unshare, *run], capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.returncode) == ("reaped\n", 0), done.stderr
