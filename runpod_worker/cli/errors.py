"""Turns expected errors of a command into one line on standard error and an exit status."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from runpod_worker.core.errors import RunpodWorkerError

P = ParamSpec("P")

DEBUG = {"on": False}
"""Set by `--debug`: errors are raised with their traceback."""


def exit_on_error(command: Callable[P, int | None]) -> Callable[P, None]:
    """Make `command` exit with its returned status, or print one line and exit with 1 for an expected error."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except (RunpodWorkerError, OSError) as error:
            if DEBUG["on"]:
                raise
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        raise typer.Exit(status or 0)

    return run
