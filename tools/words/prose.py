"""Reports banned words and turns of phrase in docstrings, comments, error texts and pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .glossary import ROOT, Glossary
from .names import python_files

TURNS: dict[str, str] = {
    r"so (many|much|long)(?! as)": "say the number or name the limit",
    r"what (is|are|was|has|it|they|we|a|the|becomes?)": "name the thing",
    r"(is|are|was|be) to be": "say who does it, actively",
    r"(no|some|every)body|whoever|whatever|whichever|who (?=[a-z]+s\b)": "name the person or program",
    r"tells?|told|said|says (?!how|that|what|when|where|whether|which|why)|heard": "send, report, return",
    r"(goes|go|went|going) on": "continue",
    r"for ever": "forever, without a limit",
    r"beforehand": "before, in advance",
    r"hand(s|ed|ing)? (over|on|out|back|in)": "assign, pass, deliver, release",
    r"(stands?|stood) (there|by|for|in)|as it stands": "is",
    r"lies? (beside|in|below|there)": "is",
    r"leave[sn]? (it )?(out|alone)|left (out|alone)": "omit, skip, ignore",
    r"(is|are|be) (there|here|gone|over|away)(?= *[.,;:)])": "exists, ended, unreachable",
    r"the one (that|which|who)|ones? that|one of ours": "name the thing",
    r"takes? (it |them )?for|taken for": "treat as",
    r"in the end|in the way|on top": "finally, below, in addition",
    r"nothing (is|of|to)|none (of|is)": "say it in the positive",
    r"owe[sd]?|culprit|patience|complain(s|t)?": "a metaphor",
    r"cannot but|need not|would that|be it|lest": "write plain English",
}
"""A regular expression, and advice. Style, not a rule: a phrase in the list may be right where it is."""


class Line(NamedTuple):
    """A piece of prose."""

    number: int
    text: str


class Hit(NamedTuple):
    """A phrase that the report lists."""

    path: str
    line: int
    phrase: str
    advice: str


def patterns(glossary: Glossary) -> list[tuple[re.Pattern[str], str]]:
    """What to look for: the words that the glossary bans anywhere, and the turns of phrase."""
    banned = sorted(" ".join(words) for words in glossary.anywhere)
    hard = "|".join(re.escape(words).replace("\\ ", r"[\s-]+") for words in banned)
    pairs = [(hard, "banned, see docs/glossary.md"), *TURNS.items()]
    return [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), advice) for pattern, advice in pairs]


def hits(path: Path, looked_for: list[tuple[re.Pattern[str], str]]) -> list[Hit]:
    """Every listed phrase in one file."""
    source = path.read_text(encoding="utf-8")
    lines = of_page(source) if path.suffix == ".md" else of_python(source)
    name = path.relative_to(ROOT).as_posix()
    return [
        Hit(name, line.number, match.group(), advice)
        for line in lines
        for pattern, advice in looked_for
        for match in pattern.finditer(line.text)
    ]


def files() -> list[Path]:
    """Python files and pages."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "templates").rglob("*.md")]
    return [*python_files(), *sorted(path for path in pages if path.name != "glossary.md")]


def of_python(source: str) -> Iterator[Line]:
    """Comments and every text of two words or more: docstrings, errors, help."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Line(token.start[0], token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from (Line(node.lineno + row, text) for row, text in enumerate(node.value.split("\n")))


def of_page(source: str) -> Iterator[Line]:
    """The lines of a Markdown page outside blocks of code."""
    inside = False
    for number, text in enumerate(source.splitlines(), start=1):
        if text.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield Line(number, re.sub(r"`[^`]*`", "", text))
