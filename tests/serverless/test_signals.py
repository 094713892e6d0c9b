"""SIGTERM to the process of `python handler.py`."""

import os

import pytest

LATE_SIGNAL = """
import os, signal, threading
import runpod_worker as runpod

def signal_beside_the_main_thread():
    with open("fifo") as fifo:
        fifo.read()
    # Like a signal just before a blocking wait: it is noted, and interrupts nothing in the main thread.
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=signal_beside_the_main_thread, daemon=True).start()
"""

HANDLERS = {
    "function": "def handler(job):\n    return 'done'\n",
    "coroutine": "async def handler(job):\n    return 'done'\n",
}


@pytest.mark.parametrize(
    ("kind", "environment"), [("function", {}), ("function", {"RUNPOD_WORKER_CONCURRENCY": "2"}), ("coroutine", {})]
)
async def test_a_signal_ends_an_idle_worker_even_if_it_does_not_interrupt_the_main_thread(
    work, tmp_path, kind, environment
):
    os.mkfifo(tmp_path / "fifo")
    code = LATE_SIGNAL + HANDLERS[kind] + 'runpod.serverless.start({"handler": handler})\n'

    _, worker = await work(code, {"id": "a", "input": 1}, **environment)
    (tmp_path / "fifo").write_text("now")

    assert await worker.ended() == 0
