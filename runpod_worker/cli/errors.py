"""Turns expected errors of a command into one line on standard error and an exit status. Does not import typer."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from runpod_worker.core.errors import RunpodWorkerError, SettingsError

P = ParamSpec("P")

EXPECTED = (RunpodWorkerError, OSError)
"""The errors that a command explains in one line. Any other is a fault of this program."""

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

DEBUG = {"on": False}
"""Set by `--debug`: errors are raised with their traceback."""


def explain(error: Exception) -> int:
    """Print the error as one line, and return the exit status: 2 for a wrong option or setting, else 1."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    sys.stderr.write(f"error: {text}\n")
    return WRONG_USAGE if isinstance(error, SettingsError) else FAILED


def exit_on_error(command: Callable[P, int | None]) -> Callable[P, None]:
    """Make `command` exit with its returned status, or explain an expected error and exit with its status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except EXPECTED as error:
            if DEBUG["on"]:
                raise
            raise SystemExit(explain(error)) from None
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        raise SystemExit(status or 0)

    return run
