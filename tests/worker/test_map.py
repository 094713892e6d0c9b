"""Each room's first page says where each of its modules belongs."""

import ast
from pathlib import Path

import pytest

import runpod_worker

PACKAGE = Path(runpod_worker.__file__).parent
ROOMS = sorted(path.parent.relative_to(PACKAGE) for path in (PACKAGE / "worker").rglob("__init__.py"))


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_every_module_is_on_the_map_of_its_room(room: Path) -> None:
    folder = PACKAGE / room
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    page = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    words = set(page.replace(",", " ").replace("(", " ").split())

    assert modules - {"__init__"} - words == set()
