"""Writes docs/logging.md: every log event of the package, made from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .words.glossary import ROOT
from .words.names import log_event

HEAD = """# Log events

Made from the code by `make docs`; do not edit.

A log line is an event and its fields: `job.stopped job=3f2a reason=cancelled`. With `RUNPOD_ENDPOINT_ID` set it is one
JSON object: `{"requestId": "3f2a", "message": "job.stopped", "level": "INFO", "reason": "cancelled"}`. An event is a
noun and a verb in the past tense. Lines from a handler carry the id of its job. Logs go to standard error, and
`RUNPOD_LOG_LEVEL` sets the level.

[CHANGELOG.md](../CHANGELOG.md) lists every event that is renamed. `…` means further fields, which depend on the case.
"""

LEVELS = {"exception": "error, with traceback"}


@dataclass
class Event:
    """An event, and all that its calls say of it."""

    levels: set[str] = field(default_factory=set)
    fields: dict[str, None] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, with its dotted name below `runpod_worker`."""
    for path in sorted((ROOT / "runpod_worker").rglob("*.py")):
        yield _dotted(path), ast.parse(path.read_text(encoding="utf-8"))


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT / "runpod_worker").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Every log call of a module, with its first argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (event := log_event(node)) is not None:
            yield node, event


def events() -> dict[str, Event]:
    """Every event of the package by its name, in order."""
    read: dict[str, Event] = {}
    for module, tree in sources():
        assigned = _dicts(tree)
        for call, name in calls(tree):
            if not isinstance(name, ast.Constant):
                continue
            event = read.setdefault(str(name.value), Event())
            level = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            event.levels.add(LEVELS.get(level, level))
            event.modules.add(module)
            event.fields |= dict.fromkeys(_extra(call, assigned))
    return dict(sorted(read.items()))


def _dicts(tree: ast.Module) -> dict[str, list[ast.Dict]]:
    """The dicts that are assigned to each variable of a module."""
    assigned: dict[str, list[ast.Dict]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
    return assigned


def _extra(call: ast.Call, assigned: dict[str, list[ast.Dict]]) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg == "extra":
            yield from _keys(keyword.value, call.lineno, assigned)


def _keys(value: ast.expr | None, line: int, assigned: dict[str, list[ast.Dict]]) -> Iterator[str]:
    """The keys of a dict, or of the dict that was last assigned to a variable above the line."""
    if isinstance(value, ast.Dict):
        for key, inner in zip(value.keys, value.values, strict=True):
            if key is None:
                yield from _keys(inner, line, assigned)
            else:
                yield str(key.value) if isinstance(key, ast.Constant) else "…"
    elif isinstance(value, ast.Name) and (above := [d for d in assigned.get(value.id, []) if d.lineno <= line]):
        yield from _keys(max(above, key=lambda d: d.lineno), line, assigned)
    else:
        yield "…"


def page() -> str:
    """docs/logging.md for the code as it is now."""
    rows = ["| event | level | fields | module |", "|---|---|---|---|"]
    for name, event in events().items():
        fields = ", ".join(f"`{key}`" for key in event.fields)
        modules = ", ".join(f"`{module}`" for module in sorted(event.modules))
        rows.append(f"| `{name}` | {', '.join(sorted(event.levels))} | {fields} | {modules} |")
    return HEAD + "\n" + "\n".join(rows) + "\n"
