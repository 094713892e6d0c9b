"""Gives a build the pip settings of this machine through mounted volumes, which leave nothing in a layer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOUNT = "/mnt"
"""An empty folder of every Debian image. Volumes are mounted below it, so that the image keeps no mount point."""


def pip_options(work: Path) -> list[str]:
    """Build options that give its pip our settings: certificates, indexes and folders of wheels.

    `work` is an empty folder; keep it until the build has ended.
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
    work.chmod(0o755)  # the build runs pip as another user than root
    mounts = [f"{work}:{MOUNT}:ro", f"{work / 'pip.conf'}:/etc/pip.conf:ro", *volumes]
    return [word for volume in mounts for word in ("--volume", volume)]


def pip_settings() -> dict[str, str]:
    """The pip settings of this machine from files and environment; the environment wins."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True)
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section == ":env:" or key not in settings:
            settings[key] = value.strip("'\"").replace("\\n", " ")
    return {key: value for key, value in settings.items() if key != "require-virtualenv"}


def _local(word: str) -> tuple[Path | None, str]:
    """The local path that a word names, and the word as a format for another path; None and "" for other words."""
    if word.startswith("file:"):
        path = Path(unquote(urlsplit(word).path))
        # An index folder links to files beside it, so its parent is mounted.
        return (path.parent, f"file://{{}}/{path.name}") if path.name == "simple" else (path, "file://{}")
    if re.match(r"/\w", word) and Path(word).exists():
        return Path(word).resolve(), "{}"
    return None, ""


def _mount_point(place: Path, like: Path) -> None:
    if like.is_dir():
        place.mkdir()
    else:
        place.touch()
