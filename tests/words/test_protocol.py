"""docs/protocol.md has every section that the code, the tests and the pages cite."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")

SECTIONS = set(re.findall(r"^#+ ([A-G](?:\.\d+)?)\.? ", PAGE, re.M)) | set(
    re.findall(r"^\| ([EG]\.\d+) \|", PAGE, re.M)
)
CITATION = re.compile(r"\b[A-G]\.\d{1,2}\b|(?<=protocol )[A-H]\b")


def sources() -> list[Path]:
    folders = ("runpod_worker", "tests", "docs", "benchmarks", "tools")
    return [path for folder in folders for kind in ("*.py", "*.md") for path in (ROOT / folder).rglob(kind)]


def cited() -> dict[str, str]:
    """One place for each section that is cited."""
    return {
        section: path.relative_to(ROOT).as_posix()
        for path in sources()
        for section in CITATION.findall(path.read_text(encoding="utf-8"))
    }


def test_every_cited_section_exists() -> None:
    assert {section: path for section, path in cited().items() if section not in SECTIONS} == {}


def test_the_sections_are_read_from_the_page() -> None:
    assert {"A", "A.1", "A.10", "B.11", "C.9", "D.8", "E.27", "F", "G.12"} <= SECTIONS
    assert {"A.5", "B.6", "G.10"} <= cited().keys()
