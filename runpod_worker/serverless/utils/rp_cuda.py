"""Detects a CUDA device without torch."""

from __future__ import annotations

import shutil
import subprocess

TIMEOUT_S = 30.0


def is_available() -> bool:
    """Whether nvidia-smi finds a driver and a device."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        done = subprocess.run([tool], capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"NVIDIA-SMI" in done.stdout
