"""What this machine lends to a build and takes back: how pip is set up here. No layer keeps any of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOUNT = "/mnt"
"""An empty folder of every Debian image; what is lent lies below it, so that no mount point stays behind."""


def pip_options(work: Path) -> list[str]:
    """Options for a build that give its pip the settings of ours: certificates, indexes, folders of wheels.

    `work` is an empty folder that lives as long as the build.
    """
    settings = pip_settings()
    if not settings:
        return []
    lines = ["[global]"]
    volumes: list[str] = []
    for name, value in sorted(settings.items()):
        words = []
        for word in value.split():
            path, form = _local(word)
            if path is None:
                words.append(word)
                continue
            inside = f"{MOUNT}/{len(volumes)}{path.suffix}"
            _mount_point(work / Path(inside).name, path)
            volumes += [f"{path}:{inside}:ro"]
            words.append(form.format(inside))
        lines.append(f"{name} = {' '.join(words)}")
    (work / "pip.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    work.chmod(0o755)  # the build's pip is not root
    every = [f"{work}:{MOUNT}:ro", f"{work / 'pip.conf'}:/etc/pip.conf:ro", *volumes]
    return [word for volume in every for word in ("--volume", volume)]


def pip_settings() -> dict[str, str]:
    """This machine's own settings of pip, from its files and its environment; the environment wins."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section == ":env:" or key not in found:
            found[key] = value.strip("'\"").replace("\\n", " ")
    return {key: value for key, value in found.items() if key != "require-virtualenv"}


def _local(word: str) -> tuple[Path | None, str]:
    """The file or folder of this machine that a word names, and how the word is written with another path."""
    if word.startswith("file:"):
        path = Path(unquote(urlsplit(word).path))
        # A folder that serves as an index points to its files beside it.
        return (path.parent, f"file://{{}}/{path.name}") if path.name == "simple" else (path, "file://{}")
    if re.match(r"/\w", word) and Path(word).exists():
        return Path(word).resolve(), "{}"
    return None, ""


def _mount_point(place: Path, like: Path) -> None:
    if like.is_dir():
        place.mkdir()
    else:
        place.touch()
