"""Two ways to start: an agent that starts executors, and a user's process that is the executor and starts its agent.

`runpod-worker run handler.py` calls `run_handler`, `python handler.py` calls `run_with_agent`. No process forks
after an import. The agent imports its HTTP client while the executor imports the handler.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import runpod_worker
from runpod_worker.config import WorkerSettings, environment, executor_settings, platform_variables
from runpod_worker.core.dispatch.values import OnRefresh
from runpod_worker.log import log, setup
from runpod_worker.processes import adopt_orphans, descendants, end
from runpod_worker.system import require_worker_support

if TYPE_CHECKING:
    from runpod_worker.worker.agent.process import Process
    from runpod_worker.worker.handler.declaration import Declaration

MAX_MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Give only larger blocks a mapping of their own. glibc allows no higher threshold."""

TRIM_THRESHOLD_BYTES = 128 * 2**20
"""Return free memory to the system when there is more of it than this."""

MALLOC_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(MAX_MMAP_THRESHOLD_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(TRIM_THRESHOLD_BYTES),
}
"""Tunes a process that is started with these variables."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def run_handler(path: Path, settings: WorkerSettings, arguments: Sequence[str] = ()) -> int:
    """Take jobs and run them with the handler in this file, in a process that is replaced when it dies.

    `arguments` go to the handler's file.

    Returns:
        The exit code.
    """
    started_at = time.monotonic()
    require_worker_support("run")
    signal.signal(signal.SIGTERM, _exit_early)  # until the loop listens
    from runpod_worker.worker.agent.process import Spawned

    adopt_orphans()
    executor = Spawned(
        [sys.executable, str(path), *arguments], {**MALLOC_ENVIRONMENT, **environment(), **executor_env(settings)}
    )
    executor.launch()
    # With a URL nothing is known to start this worker again; without one, the platform that set the variables does.
    on_refresh = OnRefresh.EXIT if settings.url is None else OnRefresh.REPLACE
    return _run_agent(settings, lambda: executor, started_at, on_refresh)


def run_with_agent(
    declare: Callable[[], Declaration], settings: WorkerSettings, on_refresh: OnRefresh = OnRefresh.EXIT
) -> int:
    """Run the declared worker's jobs in this process, with an agent beside it; return the exit code."""
    started_at = time.monotonic()
    require_worker_support("a worker")
    from runpod_worker.worker.executor.main import serve
    from runpod_worker.worker.ipc import channel

    tune_malloc()
    ours, theirs = channel.pair()
    with theirs:
        config = AgentConfig(
            settings=settings, fd=theirs.fileno(), pid=os.getpid(), started_at=started_at, on_refresh=on_refresh
        )
        agent = subprocess.Popen(  # noqa: S603 - this very interpreter, with our own module
            [sys.executable, "-P", "-m", __name__],
            env=with_package(environment()),
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            process_group=0,  # Ctrl-C reaches only this process, which passes it on
        )
    if agent.stdin is not None:  # it is a pipe
        with agent.stdin as pipe:
            pipe.write(msgspec.json.encode(config, enc_hook=str))
    atexit.register(_end_children, agent.pid)
    code = serve(declare, ours.detach(), settings=settings, terminate=agent.terminate, agent_pid=agent.pid)
    agent_code = agent.wait()  # it still reports to the service
    if agent_code == -signal.SIGTERM:  # it was asked to exit before it listened to signals, and had taken no job
        return code
    return code or (agent_code if agent_code >= 0 else 1)


def _end_children(agent: int) -> None:
    """End what the handler has started and not ended. The tracker of multiprocessing cleans up, and ends by itself."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    end(partial(descendants, os.getpid(), but=[agent, getattr(tracker, "_pid", None) or 0]))


class AgentConfig(msgspec.Struct, kw_only=True):
    """The configuration that an executor gives its agent. It goes through standard input, because it contains a key."""

    settings: WorkerSettings
    fd: int
    pid: int
    started_at: float
    on_refresh: OnRefresh


def _agent_main() -> int:
    import socket

    from runpod_worker.worker.agent.process import Parent

    data = sys.stdin.buffer.read()
    config = msgspec.json.decode(data, type=AgentConfig, dec_hook=lambda kind, value: kind(value))
    setup(config.settings.log_level, as_json=config.settings.endpoint_id is not None)
    process = Parent(socket.socket(fileno=config.fd), config.pid)
    return _run_agent(config.settings, lambda: process, config.started_at, config.on_refresh)


def _run_agent(
    settings: WorkerSettings, process: Callable[[], Process], started_at: float, on_refresh: OnRefresh
) -> int:
    import asyncio

    tune_malloc()
    from runpod_worker.net.loop import new_event_loop
    from runpod_worker.worker.agent.agent import Agent
    from runpod_worker.worker.agent.spool import Spool
    from runpod_worker.worker.link.http import HttpLink
    from runpod_worker.worker.link.transport import HttpTransport

    async def main() -> int:
        link = HttpLink(settings, HttpTransport())
        spool = Spool(settings.spool_dir, endpoint=link.endpoint, max_bytes=settings.spool_bytes)
        return await Agent(settings, link, spool, [process()], started_at=started_at, on_refresh=on_refresh).run()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(main())
    log.info("worker.exited", extra={"code": code})
    return code


def _exit_early(number: int, frame: object) -> None:
    sys.exit(0)


def executor_env(settings: WorkerSettings) -> dict[str, str]:
    """Return the variables that an agent adds to its executor's environment, for the executor and for handlers."""
    env = {
        **platform_variables(settings),
        "PYTHONUNBUFFERED": environment().get("PYTHONUNBUFFERED", "1"),
        "RUNPOD_POD_ID": settings.worker_id,
        "RUNPOD_LOG_LEVEL": settings.log_level,
    }
    if settings.device.startswith("cuda:"):  # set before its interpreter starts, to hide the other devices
        env["CUDA_VISIBLE_DEVICES"] = settings.device.removeprefix("cuda:")
        settings = replace(settings, device="cuda")
    return env | executor_settings(settings)


def with_package(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, with this package importable."""
    root = str(Path(runpod_worker.__file__).parents[1])
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))}


def tune_malloc() -> None:
    """Let malloc of this process keep the memory of large bodies, where malloc is glibc's.

    By default glibc returns every block over 128 KB to the system when it is freed, and asks for fresh pages for the
    next one. With 1 MB outputs that was up to two thirds of the time for a job.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none, and needs none
            mallopt(_M_MMAP_THRESHOLD, MAX_MMAP_THRESHOLD_BYTES)
            mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


if __name__ == "__main__":
    sys.exit(_agent_main())
