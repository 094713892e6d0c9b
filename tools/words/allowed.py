"""tests/words/allowed.txt: how many names with banned words each file still has. The number of a file only falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .glossary import ROOT
from .names import Finding

ALLOWED = ROOT / "tests/words/allowed.txt"


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """The number of findings of each file."""
    return dict(Counter(finding.path for finding in findings))


def read() -> dict[str, int]:
    """What the list allows each file."""
    lines = ALLOWED.read_text(encoding="utf-8").splitlines()
    return {path: int(count) for count, path in (line.split() for line in lines if line and not line.startswith("#"))}


def write(findings: Iterable[Finding]) -> None:
    """Replace the list."""
    lines = [f"{count} {path}" for path, count in sorted(counts(findings).items())]
    ALLOWED.write_text("\n".join(["# names with banned words, path", *lines, ""]), encoding="utf-8")
