"""The shape of the code: sizes, circles of imports, the map of each room, and tests that assert something."""

from __future__ import annotations

import ast
import gc
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import runpod_worker

PACKAGE = Path(runpod_worker.__file__).parent
ROOT = PACKAGE.parent
TESTS = Path(__file__).parent

MAX_LINES = 350
MAX_TEST_LINES = 450
MAX_FUNCTION_LINES = 40
MAX_MODULES_IN_A_FOLDER = 16
MAX_MAP_LINES = 10

ASSERTING_CALL = re.compile(r"(assert|check|expect)_\w+|until|raises|warns|fail|run_state_machine_as_test")
"""A call of a function of such a name asserts something."""

Function = ast.FunctionDef | ast.AsyncFunctionDef

# ---------------------------------------------------------------- sizes


def test_no_file_is_too_long() -> None:
    assert {name_of(path) for path in sources() if lines(path) > MAX_LINES} == set()


def test_no_test_file_is_too_long() -> None:
    assert {name_of(path) for path in files_of_tests() if lines(path) > MAX_TEST_LINES} == set()


def test_no_function_is_too_long() -> None:
    long = {
        f"{name_of(path)}:{function.name}"
        for path in sources()
        for function in functions(tree(path))
        if (function.end_lineno or 0) - function.lineno >= MAX_FUNCTION_LINES
    }

    assert long == set()


def test_no_folder_holds_too_many_modules() -> None:
    commands = PACKAGE / "cli"  # a module each
    folders = Counter(path.parent for path in sources() if path.name != "__init__.py")

    full = {name_of(folder) for folder, count in folders.items() if count > MAX_MODULES_IN_A_FOLDER}

    assert full - {name_of(commands)} == set()


# ---------------------------------------------------------------- imports


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count too."""
    assert circles(imports_by_module()) == []


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set()}

    assert circles(graph) == [{"a", "b", "c"}]


def imports_by_module() -> dict[str, set[str]]:
    """The root is left out: it names what it exports, for type checkers."""
    modules = {module_name(path): path for path in sources()}
    root = modules.pop(PACKAGE.name)
    assert root.name == "__init__.py"
    return {module: set(imported(module, path, modules)) - {module} for module, path in modules.items()}


def imported(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, path, node)
            for alias in node.names:
                yield from [name for name in (f"{base}.{alias.name}", base) if name in modules][:1]


def absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The groups of modules that all reach each other."""
    reached = {module: reachable(graph, module) for module in graph}
    groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in graph}
    return sorted((set(group) for group in groups if len(group) > 1), key=min)


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - seen:
            seen.add(module)
            waiting.append(module)
    return seen


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("room", [path.parent for path in sorted(PACKAGE.rglob("__init__.py"))], ids=str)
def test_every_room_has_a_map_of_its_modules(room: Path) -> None:
    page = ast.get_docstring(tree(room / "__init__.py")) or ""
    words = set(re.findall(r"\w+", page))

    assert modules_in(room) - words == set()
    assert len(page.splitlines()) <= MAX_MAP_LINES


def modules_in(room: Path) -> set[str]:
    files = {path.stem for path in room.glob("*.py") if not path.stem.startswith("__")}
    return files | {path.parent.name for path in room.glob("*/__init__.py")}


# ---------------------------------------------------------------- tests


def test_every_test_asserts_something() -> None:
    silent = {
        function.name
        for path in files_of_tests()
        for function in functions(tree(path))
        if function.name.startswith("test_") and not asserts(function)
    }

    assert silent == set()


def asserts(function: Function) -> bool:
    return any(isinstance(node, ast.Assert) or ASSERTING_CALL.fullmatch(called(node)) for node in ast.walk(function))


def called(node: ast.AST) -> str:
    """The last part of the name of the function that is called here."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return ""


# ---------------------------------------------------------------- files


@cache
def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def files_of_tests() -> list[Path]:
    return sorted(path for path in TESTS.rglob("*.py") if not path.is_relative_to(TESTS / "data"))


@cache
def tree(path: Path) -> ast.Module:
    gc.disable()  # if a finalizer runs Python in here, 3.11 raises "AST constructor recursion depth mismatch"
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def functions(module: ast.Module) -> Iterable[Function]:
    return (node for node in ast.walk(module) if isinstance(node, Function))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
