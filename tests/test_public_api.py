"""What users may import: the names of release 0.1 are there, the list of them is true, and importing is cheap."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import runpod_worker

NAMES_OF_0_1 = (Path(__file__).parent / "data/0.1/public_names.txt").read_text().split()
HEAVY = ("aiohttp", "asyncio", "asyncpg", "msgspec", "sqlite3", "torch", "typer", "yaml")


@pytest.mark.parametrize("line", NAMES_OF_0_1)
def test_every_public_name_of_0_1_is_there(line: str) -> None:
    module, _, name = line.partition(":")

    loaded = import_module(module)

    assert not name or hasattr(loaded, name)


def test_the_list_of_names_is_sorted_and_each_is_there() -> None:
    assert list(runpod_worker.__all__) == sorted(set(runpod_worker.__all__))
    assert [name for name in runpod_worker.__all__ if not hasattr(runpod_worker, name)] == []
    assert set(runpod_worker.__all__) <= set(dir(runpod_worker))


def test_type_checkers_see_the_names_that_are_listed() -> None:
    tree = ast.parse(Path(runpod_worker.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    declared = {
        node.target.id for node in block.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert imported | declared == set(runpod_worker.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, runpod_worker; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
