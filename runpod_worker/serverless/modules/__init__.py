"""Modules that code for RunPod's SDK imports.

rp_fitness, rp_http, rp_logger, rp_progress  as the SDK names them
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["rp_fitness", "rp_http", "rp_logger", "rp_progress"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
