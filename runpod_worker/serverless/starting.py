"""`start(config)` makes a worker from a configuration of RunPod's SDK, and runs it (protocol C.1 to C.5)."""

from __future__ import annotations

import dataclasses
import sys
import time
from contextlib import suppress
from typing import Any

import msgspec

from runpod_worker.config import WorkerSettings, channel_fd, sdk_settings
from runpod_worker.core.errors import DeclarationError
from runpod_worker.core.protocol import SDK_VERSION
from runpod_worker.worker.launch import modes
from runpod_worker.worker.worker import Worker

from . import fitness

Config = dict[str, Any]


def start(config: Config) -> None:
    """Run the worker that `config` describes, until it is asked to shut down. A failure ends the process.

    Args:
        config: these keys:
            handler: called with each job; required.
            concurrency_modifier: returns the next number of concurrent jobs for the current number.
            return_aggregate_stream: also collect the values of a generator into the output.
            refresh_worker: replace the worker after each job.
            rp_args: set to the command line's flags.

    Raises:
        DeclarationError: a key has an invalid value.
    """
    _print(f"--- Starting Serverless Worker |  Version {SDK_VERSION} ---")
    options = modes.take_flags(sys.argv)
    config["reference_counter_start"] = time.perf_counter()
    config["rp_args"] = _arguments(options)
    if options.rp_log_level:
        from .modules.rp_logger import RunPodLogger

        RunPodLogger().set_level(options.rp_log_level)
    settings = modes.settings_or_exit({"log_level": options.rp_log_level})
    if settings.uvloop is None:  # the SDK's loop is asyncio's: `nest_asyncio.apply()` fails on any other
        settings = dataclasses.replace(settings, uvloop=False)
    code = _run(config, options, settings)
    if code or _runs_once(options, settings):
        sys.exit(code)


def _run(config: Config, options: modes.Flags, settings: WorkerSettings) -> int:
    fd = channel_fd()
    if fd is not None:
        from runpod_worker.worker.executor.main import serve

        return serve(_worker(config, deployed=True).declaration, fd, settings=settings)
    sdk = sdk_settings()
    if options.rp_serve_api or sdk.realtime_port:
        from .local_api import Listen, serve_api

        realtime = Listen("0.0.0.0", sdk.realtime_port, sdk.realtime_concurrency)  # noqa: S104 - as the SDK does
        local = Listen(options.rp_api_host, options.rp_api_port, options.rp_api_concurrency)
        return serve_api(_worker(config, deployed=False), settings, local if options.rp_serve_api else realtime)
    return modes.run(_worker(config, deployed=not _runs_once(options, settings)).declaration, options, settings)


def _runs_once(options: modes.Flags, settings: WorkerSettings) -> bool:
    """Whether the handler runs once, on a test input."""
    if channel_fd() is not None or options.rp_serve_api or sdk_settings().realtime_port:
        return False
    return options.test_input is not None or not settings.deployed


def _worker(config: Config, *, deployed: bool) -> Worker:
    """The configuration as a worker. Fitness checks run only when jobs come from a job service."""
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


def _arguments(options: modes.Flags) -> dict[str, Any]:
    """The flags under the SDK's names; None for flags that were not given, as in the SDK."""
    values = dataclasses.asdict(options)
    arguments: dict[str, Any] = {name: value if value is not False else None for name, value in values.items()}
    if options.test_input and not options.test_input.startswith("@"):
        with suppress(msgspec.DecodeError):  # reported when the job runs
            arguments["test_input"] = msgspec.json.decode(options.test_input)
    return arguments


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
