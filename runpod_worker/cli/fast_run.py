"""`runpod-worker run` without a command line parser, so that an image starts faster when a job waits for it.

It understands the forms that a Dockerfile uses. Everything else (help, mistakes, shortened names) is left to the
parser, which explains mistakes, but takes 0.1 s to start and 12 MB for as long as the worker lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runpod_worker.cli.errors import EXPECTED, INTERRUPTED, explain
from runpod_worker.config import Option, WorkerSettings, options


class Arguments(NamedTuple):
    """The arguments of `run`."""

    handler: Path
    given: dict[str, object]
    as_runpod: bool
    arguments: tuple[str, ...] = ()
    """Those after `--`, for the handler's file."""


def read(arguments: Sequence[str]) -> Arguments | None:
    """Return the arguments of `run`; None if only the parser can read them."""
    if arguments[:1] != ["run"]:
        return None
    flags = {option.flag: option for option in options(WorkerSettings)}
    handlers: list[str] = []
    given: dict[str, object] = {}
    as_runpod = False
    unread = iter(arguments[1:])
    for argument in unread:
        flag, equals, text = argument.partition("=")
        if argument == "--":
            break
        if argument == "--as-runpod":
            as_runpod = True
        elif option := flags.get(flag):
            try:
                given[option.name] = _value(option, text if equals else next(unread))
            except (ValueError, StopIteration):
                return None
        else:
            handlers.append(argument)
    if len(handlers) != 1 or handlers[0].startswith("-") or not Path(handlers[0]).is_file():
        return None
    return Arguments(Path(handlers[0]), given, as_runpod, tuple(unread))


def run(arguments: Arguments) -> int:
    """Run the worker and return the exit status; an expected error is one line."""
    from runpod_worker.cli.worker import run_worker

    try:
        return run_worker(
            arguments.handler, arguments.given, as_runpod=arguments.as_runpod, arguments=arguments.arguments
        )
    except EXPECTED as error:
        return explain(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _value(option: Option, text: str) -> object:
    value = option.kind(text)
    if not option.bounds.accepts(value):
        raise ValueError(text)
    return value
