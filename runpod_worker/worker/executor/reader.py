"""Reads the agent's messages, and ends this process if it outlives the agent."""

from __future__ import annotations

import os
import threading
import time

from runpod_worker import processes
from runpod_worker.config import WorkerSettings
from runpod_worker.core.dispatch.messages import Shutdown
from runpod_worker.core.errors import ChannelClosed
from runpod_worker.log import log
from runpod_worker.worker.executor.job_loop import JobLoop
from runpod_worker.worker.ipc.channel import ExecutorChannel

AGENT_GONE = 2
"""Exit code when the agent is gone while a job runs."""

ORPHAN_S = 0.8
"""When the agent has died, jobs and shutdown hooks get this time, and so do the processes that the handler started."""


class AgentReader:
    """Reads the channel in a thread, until its end.

    Args:
        channel: the channel to the agent.
        settings: the grace periods.
        agent_pid: the agent, if it is a child of this process; None if it is the parent.
    """

    def __init__(self, channel: ExecutorChannel, settings: WorkerSettings, agent_pid: int | None) -> None:
        self._channel = channel
        self._settings = settings
        self._agent_pid = agent_pid
        self._is_shutdown = False
        self._served, self._finished = threading.Event(), threading.Event()
        self._orphaned, self._children_ended = threading.Event(), threading.Event()

    def start(self, job_loop: JobLoop) -> None:
        """Pass the agent's messages to the job loop from now on."""
        threading.Thread(target=self._read, args=(job_loop,), name="runpod-worker-channel", daemon=True).start()

    def note_served(self) -> None:
        """Record that no job runs any more."""
        self._served.set()

    def note_finished(self) -> None:
        """Record that this process is about to exit. If the agent has died, wait until the children have ended."""
        self._finished.set()
        if self._orphaned.is_set():
            self._children_ended.wait(ORPHAN_S)

    def _read(self, job_loop: JobLoop) -> None:
        """Read the channel, then end this process if it does not exit soon after its agent."""
        try:
            for message in self._channel:
                if isinstance(message, Shutdown):
                    self._is_shutdown = True
                    job_loop.close()
                else:
                    job_loop.handle(message)
        except ChannelClosed:
            log.debug("executor.agent_gone")
        except Exception:  # garbage, or a bug: without this thread no job and no stop would arrive
            log.exception("executor.channel_failed")
        if not self._is_shutdown:
            self._orphaned.set()
        job_loop.close("the agent is gone")
        if self._is_shutdown:
            self._wait_or_exit()
        elif not self._finished.is_set():
            self._end_with_children()

    def _wait_or_exit(self) -> None:
        grace_s = self._settings.grace_s
        if not self._served.wait(self._settings.stop_grace_s) or not self._finished.wait(grace_s):
            os._exit(AGENT_GONE)

    def _end_with_children(self) -> None:
        """The agent has died: nobody else ends this process or what its handler has started."""
        began = time.monotonic()
        processes.end(self._children, grace_s=ORPHAN_S / 2)
        self._children_ended.set()
        if not self._finished.wait(max(0.0, began + ORPHAN_S - time.monotonic())):
            os._exit(AGENT_GONE)

    def _children(self) -> set[processes.ProcessId]:
        if self._agent_pid is not None:
            return processes.descendants(os.getpid(), but=[self._agent_pid])
        return processes.descendants(os.getpid()) | processes.group(
            os.getpid()
        )  # the agent made this process the leader of a group
