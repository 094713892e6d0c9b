"""The command line flags of a handler file (protocol C.3). Ours are taken out of `sys.argv`, others stay there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

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


def take(argv: list[str]) -> Flags:
    """Read our flags and remove them from `argv`."""
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
