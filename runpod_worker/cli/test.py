"""`runpod-worker test`: the handler once, on this machine, without a service."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.cli.options import Handler


@bordered
def test(
    handler: Handler,
    test_input: Annotated[
        str | None, typer.Option("--input", "-i", help="The job as JSON, or @FILE; else test_input.json here.")
    ] = None,
    test_output: Annotated[
        str | None, typer.Option("--output", "-o", help="The expected output as JSON, or @FILE; compared.")
    ] = None,
) -> int:
    """Run HANDLER once on test_input.json (or --input), print what comes of it, exit 0 when it worked.

    The handler runs in this very process, so breakpoint() works.
    """
    command = [sys.executable, "-u", str(handler)]
    for flag, value in (("--test_input", test_input), ("--test_output", test_output)):
        if value is not None:
            command += [flag, value]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - the very file the user named, no shell
