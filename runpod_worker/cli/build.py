"""`runpod-worker build`: from a handler's folder to an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.config import environment
from runpod_worker.workerfile import WorkerFile, load_folder


@exit_on_error
def build(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder with the handler and worker.yaml.", exists=True, file_okay=False
        ),
    ] = Path(),
    options: Annotated[
        list[str] | None, typer.Argument(metavar="-- OPTION", help="Options to pass unchanged to the builder.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", "-t", help="The image's name; the endpoint's by default.")] = None,
    base: Annotated[str | None, typer.Option(help="Build on this image instead of worker.yaml's.")] = None,
    builder: Annotated[
        str | None, typer.Option(help="docker, podman or buildah; by default the first of them that works.")
    ] = None,
    engine: Annotated[str | None, typer.Option(hidden=True, help="The name of --builder before 0.2.")] = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="Only write the Dockerfile.")] = False,
) -> int:
    """Write DIR's Dockerfile from its worker.yaml and build it with docker, podman or buildah.

    A Dockerfile written by hand is built unchanged. Prints the size of each layer at the end.
    """
    file = load_folder(folder)
    is_own = _prepare(file, folder)
    typer.echo(f"{'using your own' if is_own else 'wrote'} {folder / 'Dockerfile'}")
    if not no_build:
        _build(file, folder, builder or engine, tag, base, options or [])
    return 0


def _prepare(file: WorkerFile, folder: Path) -> bool:
    """Write the Dockerfile, unless the folder has its own; return whether it has."""
    from runpod_worker.build import image, make_plan, refuse_secrets

    refuse_secrets(file)
    if image.has_own_dockerfile(folder):
        return True
    image.write_dockerfile(make_plan(file, folder), folder)
    return False


def _build(
    file: WorkerFile, folder: Path, builder: str | None, tag: str | None, base: str | None, options: list[str]
) -> None:
    from runpod_worker.build import default_image_name, find_builder, image, layer_table
    from runpod_worker.build.builders import hub_options

    program = find_builder(builder)
    image.require_base(program, folder, base)
    name = tag or default_image_name(file, folder)
    typer.echo(f"building {name} with {program.name}")
    base_options = ["--build-arg", f"BASE={base}"] if base else []
    program.build(folder, folder / "Dockerfile", name, [*base_options, *hub_options(environment()), *options])
    typer.echo(f"\n{layer_table(program.layers(name))}\nbuilt {name}")
