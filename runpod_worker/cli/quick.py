"""`runpod-worker run` without the machinery of a command line: an image's command, started each time a job waits.

What is read here is what a Dockerfile or a supervisor says. Whatever else (help, mistakes, shortened names) is left to
the command itself, which costs 12 MB and 0.1 s more for as long as the worker lives, and knows what to say about it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from runpod_worker.core.errors import RunpodWorkerError

OPTIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "--url": ("url", str),
    "--key": ("api_key", str),
    "--worker-id": ("worker_id", str),
    "--device": ("device", str),
    "--concurrency": ("concurrency", int),
    "--grace": ("grace_s", float),
    "--log-level": ("log_level", str),
}
"""Option of `run` -> the setting it gives, and how its text is read."""

LEAST = {"concurrency": 1, "grace_s": 0.0}


class Order(NamedTuple):
    """What the command line asks for."""

    handler: Path
    given: dict[str, object]
    as_runpod: bool


def read(arguments: Sequence[str]) -> Order | None:
    """The order in these arguments; None when it takes the whole command line to understand them."""
    if arguments[:1] != ["run"]:
        return None
    handlers, given, as_runpod = [], {}, False
    rest = iter(arguments[1:])
    for argument in rest:
        name, equals, text = argument.partition("=")
        if argument == "--as-runpod":
            as_runpod = True
        elif name in OPTIONS:
            setting, kind = OPTIONS[name]
            try:
                given[setting] = kind(text if equals else next(rest))
            except (ValueError, StopIteration):
                return None
        else:
            handlers.append(argument)
    if len(handlers) != 1 or handlers[0].startswith("-") or not Path(handlers[0]).is_file():
        return None
    if any(not given.get(name, least) >= least for name, least in LEAST.items()):  # type: ignore[operator]
        return None
    return Order(Path(handlers[0]), given, as_runpod)


def run(order: Order) -> int:
    """Do it, and return the exit status; an error that is expected is one line."""
    from runpod_worker.cli.work import work

    try:
        return work(order.handler, order.given, as_runpod=order.as_runpod)
    except (RunpodWorkerError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
