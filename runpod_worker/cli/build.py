"""`runpod-worker build`: from a handler's folder to an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.config import environment
from runpod_worker.workerfile import in_folder


@bordered
def build(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[DIR]", help="The folder of handler and worker.yaml.", exists=True, file_okay=False),
    ] = Path(),
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTION...]", help="Given to the engine as they stand.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", "-t", help="The image's name; the endpoint's by default.")] = None,
    base: Annotated[str | None, typer.Option(help="Build on this image instead of worker.yaml's.")] = None,
    engine: Annotated[str | None, typer.Option(help="docker, podman or buildah; else the first that answers.")] = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="Only write the Dockerfile.")] = False,
) -> int:
    """Write DIR's Dockerfile from its worker.yaml and build it with docker, podman or buildah, whichever is there.

    A Dockerfile that somebody wrote by hand is built as it stands. Prints at the end what each layer weighs.
    """
    from runpod_worker.build import find, image, image_name, plan, refuse_secrets, table
    from runpod_worker.build.builders import hub_options

    file = in_folder(folder)
    refuse_secrets(file)
    own = image.has_own(folder)
    if not own:
        image.write(plan(file, folder), folder)
    typer.echo(f"{'using your own' if own else 'wrote'} {folder / 'Dockerfile'}")
    if no_build:
        return 0
    found = find(engine)
    image.need_base(found, folder, base)
    name = tag or image_name(file, folder)
    typer.echo(f"building {name} with {found.name}")
    given = ["--build-arg", f"BASE={base}"] if base else []
    found.build(folder, folder / "Dockerfile", name, [*given, *hub_options(environment()), *(options or [])])
    typer.echo(f"\n{table(found.layers(name))}\nbuilt {name}")
    return 0
