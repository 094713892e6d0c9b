"""GPU inference workers, the job service they take jobs from, and a client.

Importing this package is cheap: a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import endpoint, http_client
    from .client.aio import AsyncioEndpoint, AsyncioJob
    from .client.blocking import Endpoint
    from .core.errors import (
        JobCancelled,
        JobError,
        JobFailed,
        JobTimedOut,
        RunpodWorkerError,
        WaitTimedOut,
    )

    api_key: str | None
    """The client's key; assign it, or set RUNPOD_API_KEY."""
    endpoint_url_base: str
    """Where the client finds endpoints; assign it, or set RUNPOD_ENDPOINT_BASE_URL."""

__all__ = [
    "AsyncioEndpoint",
    "AsyncioJob",
    "Endpoint",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobTimedOut",
    "RunpodWorkerError",
    "WaitTimedOut",
    "api_key",
    "endpoint",
    "endpoint_url_base",
    "http_client",
]

_HOMES = {
    "AsyncioEndpoint": "client.aio",
    "AsyncioJob": "client.aio",
    "Endpoint": "client.blocking",
    "JobCancelled": "core.errors",
    "JobError": "core.errors",
    "JobFailed": "core.errors",
    "JobTimedOut": "core.errors",
    "RunpodWorkerError": "core.errors",
    "WaitTimedOut": "core.errors",
}
"""Public name -> the module that holds it."""

_MODULES = frozenset({"endpoint", "http_client"})

_SETTINGS = {"api_key": "api_key", "endpoint_url_base": "base_url"}
"""Names a program may assign; until it does, the environment speaks, each time anew."""


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _SETTINGS:
        from .config import client_settings

        return getattr(client_settings(), _SETTINGS[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
