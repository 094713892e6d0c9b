"""The pages: links lead somewhere, and the architecture names the rooms that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "runpod_worker"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "templates").rglob("*.md")]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
PARTS = {"runpod_worker", "as_runpod", "handlers", "modules", "utils", "asyncio", "runpod"}
"""Folders that are not rooms: they repeat another package's names, or belong to the room above."""


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page

        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def rooms() -> set[str]:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    return {folder for folder in folders if not PARTS & set(folder.split("/"))}


def test_the_architecture_names_every_room_and_no_other() -> None:
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## The rooms")[2]
    table = table.partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.+?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", row)}

    assert rooms() ^ named == set()


def test_the_way_of_a_job_names_modules_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    way = page.partition("## The way of a job")[2].partition("## The rooms")[0]
    package = ROOT / "runpod_worker"
    tops = (package, package / "worker", package / "service")

    hops = set(re.findall(r"`([a-z_]+/[a-z_/]+)`", way))

    assert {
        hop for hop in hops if not any((top / hop).is_dir() or (top / f"{hop}.py").is_file() for top in tops)
    } == set()
    assert len(hops) > 30
