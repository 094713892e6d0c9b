"""The tree of commands, with their help."""

from __future__ import annotations

from typing import Annotated

import typer

from runpod_worker import __version__
from runpod_worker.cli import build, call, config, conformance, dev, errors, init, keys, run, serve
from runpod_worker.cli import test as test_command

HELP = """GPU inference workers: run a handler file anywhere, with its own job service.

Start here:  runpod-worker dev handler.py   (a service and a worker on this machine; prints a curl line to try)
"""

app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    errors.DEBUG["on"] = debug


app.command("init")(init.init)
app.command("run")(run.run)
app.command("test")(test_command.test)
app.command("dev")(dev.dev)
app.command("serve")(serve.serve)
app.command("call")(call.call)
app.command("build")(build.build)
app.command("conformance")(conformance.conformance)
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
