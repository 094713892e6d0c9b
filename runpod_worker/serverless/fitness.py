"""Fitness checks (protocol C.8). They run once before the first job; a check that fails ends the worker.

The user's checks run first, then ours: memory, disk, and CUDA if the machine has a GPU. Ours run only if the platform's
variables name a job service, because then the platform chose the machine. No check needs the internet.
"""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from runpod_worker.config import SdkSettings, sdk_settings, worker_settings
from runpod_worker.log import log

Check = Callable[[], Any]
F = TypeVar("F", bound=Check)

GIB = 2**30
GPU_TEST_TIMEOUT_S = 30.0
NVIDIA = Path("/dev/nvidia0")
_registered: list[Check] = []


def register_fitness_check(func: F) -> F:
    """Call this function before the first job when jobs come from a job service. If it raises, the worker ends.

    The function takes no arguments, and may be a coroutine function. Usable as a decorator.
    """
    _registered.append(func)
    return func


def clear_fitness_checks() -> None:
    """Remove all registered checks."""
    _registered.clear()


async def run_fitness_checks() -> None:
    """Run the checks now. A failed one ends the process with status 1, as in RunPod's SDK."""
    for check in checks():
        try:
            result = check()
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("fitness.check_failed", extra={"check": getattr(check, "__name__", repr(check))})
            sys.stderr.flush()
            os._exit(1)


def checks() -> list[Check]:
    """The checks to run, in order."""
    settings = sdk_settings()
    chosen = list(_registered)
    worker = worker_settings()
    if worker.take_url is None or worker.url is not None:
        return chosen
    if not settings.skip_system_checks:
        chosen += [lambda: _memory(settings), lambda: _disk(settings)]
        for function, name in zip(chosen[-2:], ("memory", "disk"), strict=True):
            function.__name__ = f"_{name}_check"
    if NVIDIA.exists() and not settings.skip_gpu_check:
        chosen.append(_gpu_check)
    return chosen


def _memory(settings: SdkSettings) -> None:
    available = available_memory() / GIB
    if available < settings.min_memory_gb:
        raise RuntimeError(
            f"{available:.1f} GB of memory are available, RUNPOD_MIN_MEMORY_GB requires {settings.min_memory_gb:g}"
        )


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that this process may still use: the smaller of the machine's and the container's free memory."""
    free = sys.float_info.max
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = float(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = float((cgroup / "memory.current").read_text())
    except OSError:  # no container, or cgroup version 1
        return free
    return free if limit == "max" else min(free, float(limit) - used)


def _disk(settings: SdkSettings) -> None:
    usage = shutil.disk_usage("/")
    free = usage.free / usage.total * 100
    if free < settings.min_disk_percent:
        raise RuntimeError(
            f"{free:.1f} % of the disk are free, RUNPOD_MIN_DISK_PERCENT requires {settings.min_disk_percent:g}"
        )


def _gpu_check() -> None:
    """Check that the driver has a GPU, and that torch can use it if the handler has imported torch."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        done = subprocess.run(  # noqa: S603 - found on the path
            [tool, "--list-gpus"], capture_output=True, text=True, timeout=GPU_TEST_TIMEOUT_S, check=False
        )
        if done.returncode or "GPU" not in done.stdout:
            raise RuntimeError(f"nvidia-smi lists no GPU: {(done.stderr or done.stdout).strip()[:1000]}")
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda is not None:
        torch.ones(8, device="cuda").sum().item()
