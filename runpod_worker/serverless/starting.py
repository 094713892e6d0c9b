"""`start(config)`: a configuration of RunPod's SDK becomes a worker and runs where it is (protocol C.1 to C.5)."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec

from runpod_worker.config import WorkerSettings, channel_fd, sdk_settings, worker_settings
from runpod_worker.core.errors import DeclarationError
from runpod_worker.core.protocol import SDK_VERSION
from runpod_worker.worker.launch import flags
from runpod_worker.worker.worker import Worker

from . import fitness

Config = dict[str, Any]


def start(config: Config) -> None:
    """Run the worker that `config` describes. Returns when it was told to leave; a failure ends the process.

    Args:
        config: any of
            handler: called with each job; required.
            concurrency_modifier: makes the next number of jobs at once from the current one.
            return_aggregate_stream: what a generator yields is also collected into the output.
            refresh_worker: replace the worker after each job.
            rp_args: filled with the command line's flags.

    Raises:
        DeclarationError: a key has a value that cannot be used.
    """
    _say(f"--- Starting Serverless Worker |  Version {SDK_VERSION} ---")
    told = flags.take(sys.argv)
    config["reference_counter_start"] = time.perf_counter()
    config["rp_args"] = _arguments(told)
    if told.rp_log_level:
        from .modules.rp_logger import RunPodLogger

        RunPodLogger().set_level(told.rp_log_level)
    settings = worker_settings({"log_level": told.rp_log_level})
    code = _run(config, told, settings)
    if code or _once(told, settings):
        sys.exit(code)


def _run(config: Config, told: flags.Flags, settings: WorkerSettings) -> int:
    fd = channel_fd()
    if fd is not None:
        from runpod_worker.worker.executor.main import serve

        return serve(_worker(config, deployed=True).declaration, fd, settings=settings)
    sdk = sdk_settings()
    if told.rp_serve_api or sdk.realtime_port:
        from .local_api import Listen, serve_api

        realtime = Listen("0.0.0.0", sdk.realtime_port, sdk.realtime_concurrency)  # noqa: S104 - as the SDK does
        asked = Listen(told.rp_api_host, told.rp_api_port, told.rp_api_concurrency)
        return serve_api(_worker(config, deployed=False), settings, asked if told.rp_serve_api else realtime)
    from runpod_worker.worker.launch import modes

    return modes.run(_worker(config, deployed=not _once(told, settings)).declaration, told, settings)


def _once(told: flags.Flags, settings: WorkerSettings) -> bool:
    """Whether the handler runs once, on a test input."""
    if channel_fd() is not None or told.rp_serve_api or sdk_settings().realtime_port:
        return False
    return told.test_input is not None or not settings.deployed


def _worker(config: Config, *, deployed: bool) -> Worker:
    """The configuration as a worker. Checks run where jobs come from a job service only."""
    modifier: Any = config.get("concurrency_modifier")
    if modifier is not None and not callable(modifier):
        raise DeclarationError(
            f"concurrency_modifier: expected a function of the current number, got {type(modifier).__name__}"
        )
    worker = Worker()
    worker.handler(
        concurrency=1 if modifier is None else modifier,
        aggregate=bool(config.get("return_aggregate_stream")),
        refresh=bool(config.get("refresh_worker")),
    )(_handler(config, deployed=deployed))
    if deployed:
        for check in fitness.checks():
            worker.check(check)
    return worker


def _handler(config: Config, *, deployed: bool) -> Any:
    handler = config.get("handler")
    if not callable(handler):
        raise DeclarationError(f"handler: expected a function that takes a job, got {type(handler).__name__}")
    if deployed and config["rp_args"]["rp_debugger"]:
        from .utils.rp_debugger import with_report

        return with_report(handler, config["reference_counter_start"])
    return handler


def _arguments(told: flags.Flags) -> dict[str, Any]:
    """The flags under the names that the SDK gives them; flags that were not given are None there."""
    values = dataclasses.asdict(told)
    found: dict[str, Any] = {name: value if value is not False else None for name, value in values.items()}
    if told.test_input and not told.test_input.startswith("@"):
        with suppress(msgspec.DecodeError):  # said when it is run
            found["test_input"] = msgspec.json.decode(told.test_input)
    return found


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
