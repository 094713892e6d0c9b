"""Writes the pages that are made from the code: settings.md, logging.md and worker.schema.json. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from runpod_worker.cli.config import groups
from runpod_worker.config import rows
from runpod_worker.service.settings import ServiceSettings, WebhookSettings
from runpod_worker.workerfile import Case, Model, Spool, Timeouts, WorkerFile
from runpod_worker.workerfile.schema import as_text

from . import logging_docs

DOCS = Path(__file__).resolve().parents[1] / "docs"

HEAD = """# Settings

Made from the code by `make docs`; do not edit.

The first of these that has a value wins: command line or code, environment, `worker.yaml`, default.
`runpod-worker config show` prints the values of this machine and the origin of each.
"""

TITLES = {"sdk": "Code for RunPod's SDK"}

SERVICE: dict[str, type] = {"job service": ServiceSettings, "webhooks": WebhookSettings}
"""Settings of `runpod-worker serve`."""

STRUCTS: tuple[tuple[type[msgspec.Struct], str], ...] = (
    (WorkerFile, ""),
    (Model, "models[]."),
    (Timeouts, "timeouts."),
    (Spool, "spool."),
    (Case, "tests[]."),
)


def settings_page() -> str:
    """docs/settings.md for the code as it is now."""
    parts = [HEAD]
    for name, cls in (groups() | SERVICE).items():
        parts += [
            f"## {TITLES.get(name, name.capitalize())}\n",
            f"{(cls.__doc__ or '').splitlines()[0]}\n",
            _table(("setting", "environment", "worker.yaml", "default", "accepted", "meaning"), _settings(cls)),
        ]
    parts += [
        "## worker.yaml\n",
        "One optional file beside the handler. `runpod-worker config schema` prints its JSON Schema for editors.\n",
        _table(("key", "type", "default", "meaning"), _keys()),
    ]
    return "\n".join(parts)


def _settings(cls: type) -> Iterator[tuple[str, ...]]:
    for name, env, file, default, accepted, text in rows(cls):
        variables = ", ".join(f"`{variable}`" for variable in env.split(", ") if variable)
        yield f"`{name}`", variables, _code(file), _code(default.replace(str(Path.home()), "~")), accepted, text


def _keys() -> Iterator[tuple[str, ...]]:
    defs = msgspec.json.schema(WorkerFile)["$defs"]
    for struct, prefix in STRUCTS:
        for name, about in defs[struct.__name__]["properties"].items():
            default = about.get("default")
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            shown = shown if isinstance(default, bool | int | float | str) else ""
            yield f"`{prefix}{name}`", _type(about), _code(shown), about["description"]


def _type(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(_type(choice) for choice in about["anyOf"] if choice != {"type": "null"})
    if "$ref" in about or "allOf" in about:
        return "keys with values"
    words = {
        "string": "text",
        "integer": "whole number",
        "boolean": "true, false",
        "array": "list",
        "object": "keys with values",
    }
    kind = str(about.get("type", "any JSON"))
    return words.get(kind, kind)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    marked = [head, ("---",) * len(head), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in marked)


def main() -> None:
    """Write the three files."""
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "logging.md").write_text(logging_docs.page(), encoding="utf-8")
    (DOCS / "worker.schema.json").write_text(as_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
