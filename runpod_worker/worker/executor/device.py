"""Chooses the device of the model, once, before anything is loaded. A requested device is never replaced by another.

This module imports torch only for a model function that takes a device. Without torch it reads the driver's files in
/proc.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runpod_worker.core.errors import SettingsError

_DEVICE = re.compile(r"(auto|cpu|mps|cuda(:\d+)?)")
_DRIVER = Path("/proc/driver/nvidia/gpus")
_MODEL = re.compile(r"^Model:\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Device:
    """A device: its name (`cuda:0`, `cpu`, `mps`), its value for the model function, and the name of the GPU."""

    name: str
    value: Any
    gpu: str | None = None


def resolve(wanted: str = "auto", *, with_torch: bool, driver: Path = _DRIVER) -> Device:
    """Find the device.

    Args:
        wanted: auto, cuda, cuda:1, cpu or mps.
        with_torch: import torch if it is installed, and make `value` a `torch.device`; else it is the name.
        driver: where the NVIDIA driver lists its GPUs.

    Raises:
        SettingsError: the name is invalid, or this machine has no such device.
    """
    if not _DEVICE.fullmatch(wanted):
        raise SettingsError(f"device: expected auto, cuda, cuda:N, cpu or mps, got {wanted!r}")
    torch = _torch(with_torch)
    if torch is None:
        return _by_driver(wanted, driver)
    name = _name_by_torch(wanted, torch)
    value = torch.device(name)
    return Device(name, value, torch.cuda.get_device_name(value) if name.startswith("cuda") else None)


def _torch(wanted: bool) -> Any:
    if "torch" in sys.modules:
        return sys.modules["torch"]
    if not wanted or importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch


def _name_by_torch(wanted: str, torch: Any) -> str:
    mps = getattr(torch.backends, "mps", None)
    has_mps = bool(mps and mps.is_available())
    if wanted == "mps" and not has_mps:
        raise SettingsError(f"device: mps was requested, but torch {torch.__version__} finds no Metal device")
    if wanted in ("cpu", "mps"):
        return wanted
    why = "was built without CUDA" if torch.version.cuda is None else "finds no usable NVIDIA driver or GPU"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return _choose(wanted, count, "mps" if has_mps else "cpu", f"torch {torch.__version__} {why}")


def _by_driver(wanted: str, driver: Path) -> Device:
    gpus = sorted(driver.glob("*/information")) if driver.is_dir() else []
    name = _choose(wanted, len(gpus), "cpu", f"there is no NVIDIA driver ({driver} is empty)")
    if not name.startswith("cuda"):
        return Device(name, name)
    match = _MODEL.search(gpus[int(name.partition(":")[2])].read_text())
    return Device(name, name, match[1].strip() if match else None)


def _choose(wanted: str, count: int, otherwise: str, missing: str) -> str:
    """The name of the device among `count` CUDA devices. `otherwise`: what `auto` is without any."""
    if wanted == "auto":
        return "cuda:0" if count else otherwise
    if not wanted.startswith("cuda"):
        return wanted
    if not count:
        raise SettingsError(f"device: {wanted} was requested, but {missing}")
    index = int(wanted.partition(":")[2] or 0)
    if index >= count:
        raise SettingsError(
            f"device: {wanted} was requested, but there are {count} CUDA devices, cuda:0 to cuda:{count - 1}"
        )
    return f"cuda:{index}"
