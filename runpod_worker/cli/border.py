"""Where a command's errors become one line on standard error and an exit status."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from runpod_worker.core.errors import RunpodWorkerError

P = ParamSpec("P")

DEBUG = {"on": False}
"""Set by `--debug`: errors keep their traceback."""


def bordered(command: Callable[P, int | None]) -> Callable[P, None]:
    """Make `command` end the process with its returned status, and with one line for an error that is expected."""

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
