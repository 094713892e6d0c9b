"""Rewrites parts of docs/benchmarks.md: `<!-- name -->` to `<!-- end of name -->`."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

PAGE = "benchmarks.md"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def rewrite(folder: Path, name: str, heading: str, lines: list[str]) -> None:
    """Replace the lines between the marks; without marks, append a new section to the page."""
    page = folder / PAGE
    text = page.read_text("utf-8") if page.exists() else "# Benchmarks\n"
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {heading}\n\n{begin}\n{end}\n"
    before, _, after = text.partition(begin)
    after = after.partition(end)[2]
    body = "\n".join([f"{date_and_machine()}.", "", *lines])
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", "utf-8")


def date_and_machine() -> str:
    """Describe the date and the machine."""
    when = datetime.datetime.now(tz=datetime.UTC).date()
    return (
        f"{when}, {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
