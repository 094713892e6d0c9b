"""A stop and the end of an attempt, at the same time in two threads."""

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from runpod_worker.config import download_settings
from runpod_worker.core.dispatch.messages import Done, Run
from runpod_worker.worker.executor.attempt import Attempt
from runpod_worker.worker.executor.files.inputs import Downloads
from runpod_worker.worker.executor.results import Outcome
from runpod_worker.worker.executor.window import FlowWindow

LINES_OF_STOP = 12


def make() -> Attempt:
    run, received = Run("k", b"", 0.0), {"id": "a", "input": 1}
    return Attempt(
        run, received, lambda _: None, lambda _, __, name: name, FlowWindow(), Downloads(download_settings())
    )


def end_before_line(number: int, *, timed_out: bool) -> Done:
    """Stop an attempt, and end it in another thread before this line of `Attempt.stop` runs."""
    attempt, ends, lines = make(), [], 0
    ending = threading.Thread(target=lambda: ends.append(attempt.done(Outcome(b"1"), 0.0)))

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if frame.f_code is not Attempt.stop.__code__:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                ending.start()
                ending.join(0.1)  # `done` may wait until `stop` has changed everything
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        attempt.stop("the time is over", timed_out=timed_out)
    finally:
        sys.settrace(before)
    if lines < number:
        ending.start()
    ending.join(30)
    return ends[0]


@pytest.mark.parametrize("number", range(1, LINES_OF_STOP))
@pytest.mark.parametrize("timed_out", [False, True])
def test_an_attempt_that_ends_during_its_stop_is_either_complete_or_stopped(number: int, timed_out: bool) -> None:
    done = end_before_line(number, timed_out=timed_out)

    complete = (b"1", None, False)
    stopped = (None, "the time is over", False) if timed_out else (None, None, True)
    assert (done.output, done.error, done.stopped) in (complete, stopped)
