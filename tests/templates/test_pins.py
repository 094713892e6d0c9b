"""One version of each package, wherever it is written down."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "templates").iterdir())


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


@pytest.fixture(scope="module")
def tried() -> dict[str, str]:
    """What `make` installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    demo = pins("\n".join(project["optional-dependencies"]["demo"]))
    return demo | pins((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda folder: folder.name)
def test_a_template_asks_for_the_versions_that_are_tried_here(template: Path, tried: dict[str, str]) -> None:
    lines = (template / "requirements.txt").read_text().splitlines()
    wanted = pins("\n".join(line.removeprefix("# ") for line in lines))

    assert wanted == {name: tried[name] for name in wanted}
    assert all("==" in line for line in lines if line and not line.startswith("#"))
