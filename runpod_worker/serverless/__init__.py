"""The interface of RunPod's SDK: `runpod.serverless.start({"handler": handler})` and its helpers.

Code for the SDK needs only `import runpod_worker as runpod`; docs/compatibility.md lists the differences.

starting           start(config)
fitness, progress  checks before the first job; progress_update
local_api          `--rp_serve_api`
modules, utils     the SDK's module paths
as_runpod          lets `import runpod` find this package"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runpod_worker.core.protocol import SDK_VERSION as runpod_version  # noqa: N811 - the SDK's name

from .fitness import register_fitness_check
from .progress import progress_update
from .starting import start

if TYPE_CHECKING:
    from . import modules, utils
    from .utils.rp_volume_cache import VolumeCache

__all__ = [
    "VolumeCache",
    "modules",
    "progress_update",
    "register_fitness_check",
    "runpod_version",
    "start",
    "utils",
]


def __getattr__(name: str) -> object:
    if name == "VolumeCache":
        return import_module(f"{__name__}.utils.rp_volume_cache").VolumeCache
    if name in ("modules", "utils"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
