"""Times parts of a handler; `--rp_debugger` adds the times to the output (protocol C.7).

Each job has its own checkpoints, so different jobs may use the same names.
"""

from __future__ import annotations

import functools
import platform
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runpod_worker.core.protocol import SDK_VERSION
from runpod_worker.log import job_id
from runpod_worker.worker.handler.declaration import WRAPPING_FILES, kind_of

WRAPPING_FILES.add(__file__)

MAX_JOBS = 1000
"""Checkpoints are kept for this many jobs; then those of the oldest job are dropped."""

STARTED_AT = time.perf_counter()


class Checkpoints:
    """The checkpoints of the job whose handler runs in this context: `add` a name, `start` it, `stop` it."""

    _by_job: dict[str | None, list[dict[str, Any]]] = {}  # noqa: RUF012 - shared by all instances, as in the SDK

    @property
    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints of this job, in the order of `add`."""
        job = job_id.get()
        if job not in self._by_job and len(self._by_job) >= MAX_JOBS:
            del self._by_job[next(iter(self._by_job))]
        return self._by_job.setdefault(job, [])

    @property
    def name_lookup(self) -> dict[str, int]:
        """The index of each name."""
        return {checkpoint["name"]: index for index, checkpoint in enumerate(self.checkpoints)}

    def add(self, name: str) -> None:
        """Add a checkpoint.

        Raises:
            KeyError: this job has a checkpoint with that name.
        """
        if name in self.name_lookup:
            raise KeyError(f'Checkpoint name "{name}" already exists.')
        self.checkpoints.append({"name": name})

    def start(self, name: str) -> None:
        """Record the start.

        Raises:
            KeyError: this job has no checkpoint with that name.
        """
        self._named(name).update(start=time.perf_counter(), start_utc=_utc())

    def stop(self, name: str) -> None:
        """Record the end.

        Raises:
            KeyError: this job has no checkpoint with that name, or it has not started.
        """
        checkpoint = self._named(name)
        if "start" not in checkpoint:
            raise KeyError("Checkpoint has not been started.")
        checkpoint.update(end=time.perf_counter(), stop_utc=_utc())

    def get_checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints that have a start and an end."""
        return [
            {
                "name": checkpoint["name"],
                "start_utc": checkpoint["start_utc"],
                "stop_utc": checkpoint["stop_utc"],
                "duration_ms": (checkpoint["end"] - checkpoint["start"]) * 1000,
            }
            for checkpoint in self.checkpoints
            if "start" in checkpoint and "end" in checkpoint
        ]

    def clear(self) -> None:
        """Remove the checkpoints of this job."""
        self._by_job.pop(job_id.get(), None)

    def free_name(self, name: str) -> str:
        """The name, with a number appended if this job has used it."""
        used = Counter(checkpoint["name"].partition("#")[0] for checkpoint in self.checkpoints)[name]
        return f"{name}#{used + 1}" if used else name

    def _named(self, name: str) -> dict[str, Any]:
        for checkpoint in self.checkpoints:
            if checkpoint["name"] == name:
                return checkpoint
        raise KeyError(f"Checkpoint name '{name}' does not exist.")


class LineTimer:
    """Times a `with` block. The second block of the same name in a job is `name#2`."""

    def __init__(self, name: str) -> None:
        self.checkpoints = Checkpoints()
        self.name = name
        self._entered: list[str] = []

    def __enter__(self) -> None:
        name = self.checkpoints.free_name(self.name)
        self.checkpoints.add(name)
        self.checkpoints.start(name)
        self._entered.append(name)

    def __exit__(self, *error: object) -> None:
        self.checkpoints.stop(self._entered.pop())


class FunctionTimer:
    """Times each call of the decorated function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.checkpoints = Checkpoints()
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with LineTimer(self.function.__name__):
            return self.function(*args, **kwargs)


def get_debugger_output() -> dict[str, Any]:
    """The times of this job and the system it ran on; removes the times."""
    checkpoints = Checkpoints()
    timestamps = checkpoints.get_checkpoints()
    checkpoints.clear()
    system = {
        "os": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "python_version": platform.python_version(),
        "runpod": SDK_VERSION,
    }
    return {"system_info": system, "timestamps": timestamps}


def clear_debugger_output() -> None:
    """Remove the times of this job."""
    Checkpoints().clear()


def with_report(handler: Callable[..., Any], started: float) -> Callable[..., Any]:
    """A handler that adds the report to an output that is a dict. Other outputs and streams are not changed."""
    kind = kind_of(handler)
    if kind.is_generator:
        return handler
    if kind.on_loop:

        @functools.wraps(handler)
        async def on_loop(job: Any) -> Any:
            return _add_report(await handler(job), started)

        return on_loop

    @functools.wraps(handler)
    def called(job: Any) -> Any:
        return _add_report(handler(job), started)

    return called


def _add_report(output: Any, started: float) -> Any:
    report = get_debugger_output()
    report["ready_delay_ms"] = (started - STARTED_AT) * 1000
    return {**output, "rp_debugger": report} if isinstance(output, dict) else output


def _utc() -> str:
    now = datetime.now(UTC)  # noqa: TID251 - the report shows wall-clock times
    return now.isoformat().replace("+00:00", "Z")


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
