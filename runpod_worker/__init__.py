"""GPU inference workers, the job service they take jobs from, and a client. Names are loaded at their first use.

core, net              rules without I/O; addresses and downloads
worker, service        what takes and runs jobs; what keeps and gives them
client, endpoint       the client; endpoint, error, http_client, serverless, version: the names of RunPod's SDK
cli, testing           commands; what users' tests need
conformance            checks of workers and services that others wrote
build, workerfile      images; worker.yaml
config, log, system    settings, log lines, what Windows lacks
processes              processes that other processes leave behind
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runpod_worker.worker.handler import chat as openai
    from runpod_worker.worker.handler.job import File, Job
    from runpod_worker.worker.worker import Worker

    from . import endpoint, http_client, serverless
    from .client.aio import AsyncioEndpoint, AsyncioJob
    from .client.blocking import Endpoint
    from .core.errors import (
        DeclarationError,
        InputError,
        JobCancelled,
        JobError,
        JobFailed,
        JobStopped,
        JobTimedOut,
        OutputError,
        RunpodWorkerError,
        WaitTimedOut,
    )
    from .serverless.modules.rp_logger import RunPodLogger

    __version__: str

    api_key: str | None
    """The client's key; assign it, or set RUNPOD_API_KEY."""
    endpoint_url_base: str
    """The base URL of endpoints; assign it, or set RUNPOD_ENDPOINT_BASE_URL."""

__all__ = [
    "AsyncioEndpoint",
    "AsyncioJob",
    "DeclarationError",
    "Endpoint",
    "File",
    "InputError",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobStopped",
    "JobTimedOut",
    "OutputError",
    "RunPodLogger",
    "RunpodWorkerError",
    "WaitTimedOut",
    "Worker",
    "__version__",
    "api_key",
    "endpoint",
    "endpoint_url_base",
    "http_client",
    "openai",
    "serverless",
]

_MODULE_OF = {
    "AsyncioEndpoint": "client.aio",
    "AsyncioJob": "client.aio",
    "DeclarationError": "core.errors",
    "Endpoint": "client.blocking",
    "File": "worker.handler.job",
    "InputError": "core.errors",
    "Job": "worker.handler.job",
    "JobCancelled": "core.errors",
    "JobError": "core.errors",
    "JobFailed": "core.errors",
    "JobStopped": "core.errors",
    "JobTimedOut": "core.errors",
    "OutputError": "core.errors",
    "RunPodLogger": "serverless.modules.rp_logger",
    "RunpodWorkerError": "core.errors",
    "WaitTimedOut": "core.errors",
    "Worker": "worker.worker",
}
"""The module of each public name."""

_MODULES = {name: name for name in ("endpoint", "error", "http_client", "serverless", "version")} | {
    "openai": "worker.handler.chat"
}
"""The path of each public module."""

_SETTINGS = {"api_key": "api_key", "endpoint_url_base": "base_url"}
"""Names that a program may assign. Until then each read returns the setting from the environment."""


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name in _SETTINGS:
        from .config import client_settings

        return getattr(client_settings(), _SETTINGS[name])
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # takes 30 ms, and most programs do not need it

        try:
            return version("runpod-worker")
        except PackageNotFoundError:  # the package was copied, not installed
            return "unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
