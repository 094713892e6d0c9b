"""Every name that a Python file defines: identifiers, log events and their fields, settings, command-line options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .glossary import ROOT, Glossary

FOLDERS = ("runpod_worker", "tests", "benchmarks", "tools", "examples", "templates")

LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"RUNPOD_[A-Z0-9_]+")


class Name(NamedTuple):
    """A name, where it is defined, and what it names."""

    text: str
    line: int
    kind: str


class Finding(NamedTuple):
    """A name that contains a banned word."""

    path: str
    name: Name
    banned: str

    def __str__(self) -> str:
        return f"{self.path}:{self.name.line}: {self.name.kind} {self.name.text!r} contains {self.banned!r}"


def python_files() -> list[Path]:
    """Every Python file whose names are checked, in order."""
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def findings(source: str, path: str, glossary: Glossary) -> list[Finding]:
    """The banned words among the names of one file."""
    module = [Name(part, 1, "module") for part in Path(path).with_suffix("").parts[1:]]
    names = [*module, *defined(ast.parse(source))]
    banned = ((name, glossary.banned_in(name.text)) for name in names)
    return [Finding(path, name, words) for name, words in banned if words is not None]


def all_findings(glossary: Glossary) -> list[Finding]:
    """The banned words among the names of the repository."""
    sources = ((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in python_files())
    return [finding for path, source in sources for finding in findings(source, path, glossary)]


def defined(tree: ast.AST) -> Iterator[Name]:
    """The names that a syntax tree defines."""
    for node in ast.walk(tree):
        yield from _identifiers(node)
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _of_text(node.value, node.lineno)


def _identifiers(node: ast.AST) -> Iterator[Name]:
    match node:
        case ast.ClassDef():
            yield Name(node.name, node.lineno, "class")
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield Name(node.name, node.lineno, "function")
        case ast.arg():
            yield Name(node.arg, node.lineno, "argument")
        case ast.Name(ctx=ast.Store()):
            yield Name(node.id, node.lineno, "variable")
        case ast.Attribute(ctx=ast.Store()):
            yield Name(node.attr, node.lineno, "attribute")
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield Name(name, node.lineno, "variable")
        case ast.Import() | ast.ImportFrom():
            yield from (Name(alias.asname, node.lineno, "import") for alias in node.names if alias.asname)
        case _:
            return


def log_event(call: ast.Call) -> ast.expr | None:
    """The first argument of a call such as `log.info(...)`, or None when it is another call."""
    match call:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[event, *_]) if level in LEVELS:
            return event
        case _:
            return None


def _of_call(call: ast.Call) -> Iterator[Name]:
    event = log_event(call)
    if isinstance(event, ast.Constant):
        yield Name(str(event.value), call.lineno, "log event")
        fields = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
        for keys in (value.keys for value in fields if isinstance(value, ast.Dict)):
            yield from (Name(str(key.value), key.lineno, "log field") for key in keys if isinstance(key, ast.Constant))
    for keyword in call.keywords:
        if keyword.arg == "file" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
            yield Name(keyword.value.value, call.lineno, "setting")


def _of_text(text: str, line: int) -> Iterator[Name]:
    if _VARIABLE.fullmatch(text):
        yield Name(text, line, "setting")
    elif text.startswith("-"):
        yield from (Name(option, line, "option") for option in _OPTION.findall(text))
