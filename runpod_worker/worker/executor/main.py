"""The executor process: the user's code, joined to the agent by a channel."""

from __future__ import annotations

import faulthandler
import gc
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.messages import LoadFailed, Terminated
from runpod_worker.core.errors import ChannelClosed, CheckFailed, RunpodWorkerError
from runpod_worker.log import log, setup
from runpod_worker.worker.executor.interrupt import waking_on_signals
from runpod_worker.worker.executor.job_loop import JobLoop
from runpod_worker.worker.executor.reader import AGENT_GONE, AgentReader
from runpod_worker.worker.executor.results import traceback_of
from runpod_worker.worker.handler.declaration import Declaration
from runpod_worker.worker.ipc.channel import ExecutorChannel

LOAD_FAILED = 1
"""Exit code after a failed load."""


def serve(
    declare: Callable[[], Declaration],
    fd: int,
    *,
    settings: WorkerSettings,
    terminate: Callable[[], None] | None = None,
    agent_pid: int | None = None,
) -> int:
    """Load the model, run the agent's jobs until it closes the channel, and return the exit code.

    Args:
        declare: returns what the user declared. If it raises, the error is reported like a failure to load the model.
        fd: the executor's end of the channel.
        terminate: called in the main thread on SIGTERM and SIGINT. By default SIGTERM asks the agent to drain the
            worker, and SIGINT does nothing, because the agent decides when this process ends.
        agent_pid: the agent, if this process started it.
    """
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    channel = ExecutorChannel(socket.socket(fileno=fd))
    users_handler = signal.getsignal(signal.SIGTERM)
    signals = _Signals(channel, terminate)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signals.receive)  # not SIG_IGN, which the user's own child processes would inherit
    if not faulthandler.is_enabled():
        faulthandler.enable()
    reader = AgentReader(channel, settings, agent_pid)
    try:
        return _serve(declare, settings, channel, reader)
    except ChannelClosed:
        return AGENT_GONE
    finally:
        signals.call_users_handler(users_handler)
        reader.note_finished()
        channel.close()


class _Signals:
    """What SIGTERM and SIGINT do while the worker runs."""

    def __init__(self, channel: ExecutorChannel, terminate: Callable[[], None] | None) -> None:
        self._channel = channel
        self._terminate = terminate

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, in the main thread."""
        if self._terminate is not None:
            self._terminate()
        elif number == signal.SIGTERM:  # in a thread, because the main thread may be in the middle of a message
            threading.Thread(target=self._request_drain, daemon=True).start()

    def _request_drain(self) -> None:
        with suppress(ChannelClosed):
            self._channel.send(Terminated())

    def call_users_handler(self, before: object) -> None:
        """Call the handler for SIGTERM that the user's code has set, before `start` or later, so that it can clean up.

        The worker has ended its jobs by now, so the handler may exit.
        """
        handler = signal.getsignal(signal.SIGTERM)
        users = before if handler == self.receive else handler
        if isinstance(users, signal.Handlers) or not callable(users):
            return
        try:
            users(signal.SIGTERM, None)
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit):
                log.exception("sigterm_handler.failed")


def _serve(
    declare: Callable[[], Declaration], settings: WorkerSettings, channel: ExecutorChannel, reader: AgentReader
) -> int:
    try:
        job_loop = JobLoop(declare(), settings, channel.send)
        reader.start(job_loop)
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
        reader.note_served()  # so the reader does not kill this process while it waits for its agent
        return LOAD_FAILED
    log.info("executor.ready", extra={"device": ready.device, "load_s": round(ready.load_s, 3), "slots": ready.slots})
    channel.send(ready)
    code = 0
    try:
        with waking_on_signals(job_loop.wake):
            job_loop.serve()
    except ChannelClosed:
        code = AGENT_GONE
    reader.note_served()
    job_loop.shutdown()
    return code
