"""The executor process: the user's code, joined to the agent by a channel."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.messages import LoadFailed
from runpod_worker.core.errors import ChannelClosed, CheckFailed, RunpodWorkerError
from runpod_worker.log import log, setup
from runpod_worker.worker.executor.interrupt import waking_on_signals
from runpod_worker.worker.executor.job_loop import JobLoop
from runpod_worker.worker.executor.results import traceback_of
from runpod_worker.worker.handler.declaration import Declaration
from runpod_worker.worker.ipc.channel import ExecutorChannel

LOAD_FAILED = 1
"""Exit code after a failed load."""

AGENT_GONE = 2
"""Exit code when the agent is gone while a job runs."""


def serve(
    declare: Callable[[], Declaration],
    fd: int,
    *,
    settings: WorkerSettings,
    terminate: Callable[[], None] | None = None,
) -> int:
    """Load the model, run the agent's jobs until it closes the channel, and return the exit code.

    Args:
        declare: returns what the user declared. If it raises, the error is reported like a failure to load the model.
        fd: the executor's end of the channel.
        terminate: called in the main thread on SIGTERM and SIGINT. By default these signals do nothing,
            because the agent decides when this process ends.
    """
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not SIG_IGN, which the user's own child processes would inherit.
        signal.signal(number, lambda *_: terminate() if terminate else None)
    if not faulthandler.is_enabled():
        faulthandler.enable()
    channel = ExecutorChannel(socket.socket(fileno=fd))
    try:
        return _serve(declare, settings, channel)
    except ChannelClosed:
        return AGENT_GONE
    finally:
        channel.close()


def _serve(declare: Callable[[], Declaration], settings: WorkerSettings, channel: ExecutorChannel) -> int:
    served, finished = threading.Event(), threading.Event()
    try:
        job_loop = JobLoop(declare(), settings, channel.send)
        arguments = (channel, job_loop, settings, served, finished)
        threading.Thread(target=_read, args=arguments, name="runpod-worker-channel", daemon=True).start()
        ready = job_loop.load()
        gc.collect()
        gc.freeze()  # loaded objects stay, so the garbage collector can skip them
    except BaseException as error:
        text = str(error) if isinstance(error, RunpodWorkerError) else traceback_of(error)
        log.error("executor.load_failed", extra={"error": text})
        if isinstance(error, CheckFailed):
            channel.send(LoadFailed(text, error.check, error.reason))
        else:
            channel.send(LoadFailed(text))
        served.set()  # so `_read` does not kill this process while it waits for its agent
        finished.set()
        return LOAD_FAILED
    log.info("executor.ready", extra={"device": ready.device, "load_s": round(ready.load_s, 3), "slots": ready.slots})
    channel.send(ready)
    code = 0
    try:
        with waking_on_signals(job_loop.wake):
            job_loop.serve()
    except ChannelClosed:
        code = AGENT_GONE
    served.set()
    job_loop.shutdown()
    finished.set()
    return code


def _read(
    channel: ExecutorChannel,
    job_loop: JobLoop,
    settings: WorkerSettings,
    served: threading.Event,
    finished: threading.Event,
) -> None:
    """Read the channel, then end this process if it does not exit soon after the agent's death."""
    try:
        for message in channel:
            job_loop.handle(message)
    except ChannelClosed:
        log.debug("executor.agent_gone")
    except Exception:  # garbage, or a bug: without this thread no job and no stop would arrive
        log.exception("executor.channel_failed")
    job_loop.close("the agent is gone")
    if not served.wait(settings.stop_grace_s) or not finished.wait(settings.grace_s):
        os._exit(AGENT_GONE)
