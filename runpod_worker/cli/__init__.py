"""The command line, `runpod-worker`.

app: the tree of commands. build, call, config, conformance, dev, init, keys, run, serve, test: a command each.
errors: expected errors as one line. options: what several commands take.
fast_run: `run` without typer. worker: what `run` does. once: what `test` does. suite: the tests of worker.yaml.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["run"] and os.getpid() == 1:
        from runpod_worker.worker.launch.init import continue_in_child

        continue_in_child()
    from runpod_worker.cli import fast_run

    if (parsed := fast_run.read(arguments)) is not None:
        return fast_run.run(parsed)
    from runpod_worker.cli.app import app

    try:
        app(args=arguments, prog_name="runpod-worker")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
    return 0
