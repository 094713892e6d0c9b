"""Reads the flags of `python handler.py`, and decides where it runs: behind a job service, or once, in this process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runpod_worker.config import WorkerSettings, worker_settings
from runpod_worker.core.errors import SettingsError
from runpod_worker.log import setup
from runpod_worker.worker.handler.declaration import Declaration

LEVELS = ("ERROR", "WARN", "INFO", "DEBUG", "TRACE", "NOTSET")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of `python handler.py`."""

    test_input: str | None = None
    test_output: str | None = None
    test_full: bool = False
    rp_serve_api: bool = False
    rp_api_host: str = "localhost"
    rp_api_port: int = 8000
    rp_api_concurrency: int = 1
    rp_log_level: str | None = None
    rp_debugger: bool = False


def take_flags(argv: list[str]) -> Flags:
    """Read our flags (protocol C.3) and remove them from `argv`. The others stay there."""
    parser = argparse.ArgumentParser(description="Run this file's handler.")
    parser.add_argument("--test_input", metavar="JSON|@FILE", help="run the handler once on this job")
    parser.add_argument("--test_output", metavar="JSON|@FILE", help="compare the output with this")
    parser.add_argument("--test_full", action="store_true", help="print long values in full")
    parser.add_argument("--rp_serve_api", action="store_true", help="serve the handler behind a local job API")
    parser.add_argument("--rp_api_host", default="localhost", help="address of that API")
    parser.add_argument("--rp_api_port", type=int, default=8000, help="port of that API")
    parser.add_argument("--rp_api_concurrency", type=int, default=1, help="concurrent jobs of that API")
    parser.add_argument("--rp_log_level", choices=LEVELS, help="lowest level to log")
    parser.add_argument("--rp_debugger", action="store_true", help="add the handler's timings to its output")
    ours, argv[1:] = parser.parse_known_args(argv[1:])
    return Flags(**vars(ours))


def start(declare: Callable[[], Declaration], given: Mapping[str, object]) -> int:
    """Run the declared worker with the command line, the environment and `given`; return the exit code."""
    setup()  # for warnings while settings are read; `run` then sets the format that they choose
    parsed = take_flags(sys.argv)
    return run(declare, parsed, settings_or_exit({"log_level": parsed.rp_log_level, **given}))


def settings_or_exit(given: Mapping[str, object]) -> WorkerSettings:
    """Return the worker's settings; explain a wrong one in one line and exit with 2, as the command line does."""
    try:
        return worker_settings(given)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def run(declare: Callable[[], Declaration], parsed: Flags, settings: WorkerSettings) -> int:
    """Run the declared worker with these flags and settings; return the exit code.

    Raises:
        DeclarationError: the declaration is invalid; nothing was started.
        SettingsError: `--rp_serve_api` was given, which only `runpod_worker.serverless` can serve.
    """
    setup(settings.log_level, as_json=settings.endpoint_id is not None)
    declaration = declare()
    if parsed.rp_serve_api:
        raise SettingsError("--rp_serve_api: there is no local API here; use `runpod-worker dev` instead")
    if parsed.test_input is not None or not settings.deployed:
        from runpod_worker.worker.launch import local

        return local.run(declaration, settings, parsed.test_input, parsed.test_output, full=parsed.test_full)
    from runpod_worker.worker.launch.launch import run_with_agent

    return run_with_agent(declare, settings)
