"""Reads the banned words and the wire names from docs/glossary.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/glossary.md"

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def split(name: str) -> tuple[str, ...]:
    """The words of a name in snake case, camel case or with dashes, in lower case; digits are dropped."""
    return tuple(word.lower() for word in _WORD.findall(name))


@dataclass(frozen=True)
class Glossary:
    """What docs/glossary.md bans, and what it exempts."""

    anywhere: frozenset[tuple[str, ...]]
    """Banned as words of a name, each as its sequence of words."""
    whole: frozenset[tuple[str, ...]]
    """Banned as a whole name."""
    wire: frozenset[str]
    """Names that RunPod chose; exempt."""

    def banned_in(self, name: str) -> str | None:
        """The banned words that `name` contains, or None."""
        if name in self.wire:
            return None
        words = split(name)
        if words in self.whole:
            return words[0]
        for phrase in self.anywhere:
            size = len(phrase)
            if any(words[start : start + size] == phrase for start in range(len(words) - size + 1)):
                return " ".join(phrase)
        return None


def parse(page: str) -> Glossary:
    """Read the text of the page.

    Raises:
        ValueError: a section is missing or empty, so that no table is skipped in silence.
    """
    banned, _, wire = page.partition("\n## Banned anywhere\n")[2].partition("\n## Wire names\n")
    anywhere, _, whole = banned.partition("\nAs a whole name")
    read = Glossary(
        anywhere=_first_column(anywhere),
        whole=_first_column(whole),
        wire=frozenset(re.findall(r"`([^`]+)`", wire)),
    )
    if not (read.anywhere and read.whole and read.wire):
        raise ValueError("docs/glossary.md has no banned words, no whole names or no wire names")
    return read


def load() -> Glossary:
    """The glossary of this repository."""
    return parse(PAGE.read_text(encoding="utf-8"))


def _first_column(table: str) -> frozenset[tuple[str, ...]]:
    rows = (line.split("|")[1] for line in table.splitlines() if line.startswith("|") and not line.startswith("|--"))
    return frozenset(split(form) for row in rows if row.strip() != "banned" for form in row.split(","))
