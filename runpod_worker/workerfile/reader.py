"""Reads worker.yaml. Every error names file, line and key, and the expected value.

The expected type decides how a scalar is read, so `python: 3.10` is the text "3.10" and not the number 3.1.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile.model import VARIABLE, WorkerFile

WORDS = {
    "^Expected": "expected",
    "^Object missing required field": "lacks the key",
    r"\bstr\b": "text",
    r"\bobject\b": "keys with values",
    r"\barray\b": "a list",
    r"\bint\b": "a whole number",
    r"\bfloat\b": "a number",
    r"\bbool\b": "true or false",
}

Place = tuple[str | int, ...]
Node = yaml.Node


def read(path: Path) -> WorkerFile:
    """Read the file at `path`.

    Raises:
        SettingsError: it is not YAML, or has an unknown key or a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: expected UTF-8 text: {error}") from None
    return _Reader(path).read(text)


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates: a job's input is JSON, where 2026-11-23 is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class declares it
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Reader:
    """Turns a text into a WorkerFile; remembers the line of every value for the errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marks: dict[Place, yaml.Mark] = {}
        self.loader: Any = None

    def read(self, text: str) -> WorkerFile:
        try:
            self.loader = _Loader(text)
            node = self.loader.get_single_node()
            if node is None:
                return WorkerFile()
            value = self._value(node, inspect.type_info(WorkerFile), ())
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error) from None
        except yaml.YAMLError as error:  # for example a control character
            raise SettingsError(f"{self.path}: not YAML: {error}") from None
        try:
            return msgspec.convert(value, WorkerFile)
        except msgspec.ValidationError as error:
            raise self._invalid(str(error), value) from None

    def _value(self, node: Node, kind: inspect.Type, place: Place) -> Any:
        self.marks[place] = node.start_mark
        kind = _bare(kind)
        if isinstance(kind, inspect.UnionType):
            kind = _union_member(node, kind)
        if isinstance(kind, inspect.StructType | inspect.DictType) and isinstance(node, yaml.MappingNode):
            return self._mapping(node, kind, place)
        if isinstance(kind, inspect.VarTupleType) and isinstance(node, yaml.SequenceNode):
            return [self._value(item, kind.item_type, (*place, i)) for i, item in enumerate(node.value)]
        if isinstance(kind, inspect.StrType) and isinstance(node, yaml.ScalarNode) and not _is_null(node):
            return node.value
        return self.loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, kind: inspect.StructType | inspect.DictType, place: Place) -> Any:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*place, key)
            if key in values:
                raise self._error(key_node.start_mark, here, "appears for the second time")
            if isinstance(kind, inspect.StructType):
                self._field(values, key_node, value_node, kind, here)
            else:
                values[key] = self._variable(key_node, value_node, here)
        return values

    def _field(
        self, values: dict[str, Any], key_node: Node, node: Node, kind: inspect.StructType, place: Place
    ) -> None:
        known = {field.name: field.type for field in kind.fields}
        key = str(key_node.value)
        if key not in known:
            raise self._error(key_node.start_mark, place, _unknown(key, list(known)))
        if _is_null(node) and not isinstance(_bare(known[key]), inspect.AnyType):
            return  # an empty `tests:` equals a missing one
        values[key] = self._value(node, known[key], place)

    def _variable(self, key_node: Node, node: Node, place: Place) -> str:
        if not re.match(VARIABLE, str(key_node.value)):
            raise self._error(key_node.start_mark, place, "expected the name of an environment variable")
        if not isinstance(node, yaml.ScalarNode) or _is_null(node):
            raise self._error(
                node.start_mark, place, f"expected text, got {'nothing' if _is_null(node) else 'a list or keys'}"
            )
        return str(node.value)

    def _invalid(self, message: str, value: object) -> SettingsError:
        what, _, path = message.partition(" - at ")
        place = _place(path)
        for part in place:
            value = value[part]  # type: ignore[index]  # msgspec's path leads through dicts and lists
        got = "" if isinstance(value, dict | list) else f", got {value!r} ({type(value).__name__})"
        return self._error(self.marks[place], place, _plain(what) + got)

    def _error(self, mark: yaml.Mark, place: Place, what: str) -> SettingsError:
        return SettingsError(f"{self.path}:{mark.line + 1}: {dotted(place) or 'the file'}: {what}")

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> SettingsError:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        return SettingsError(f"{self.path}{where}: not YAML: {error.problem or error.context}")


def dotted(place: Place) -> str:
    """Format a place as `models[0].id`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _is_null(node: Node) -> bool:
    return str(node.tag).endswith(":null")


def _union_member(node: Node, kind: inspect.UnionType) -> inspect.Type:
    """Return the member of `kind` that fits this form of node."""
    forms: dict[type[Node], tuple[type[inspect.Type], ...]] = {
        yaml.MappingNode: (inspect.StructType, inspect.DictType),
        yaml.SequenceNode: (inspect.VarTupleType,),
        yaml.ScalarNode: (inspect.StrType, inspect.FloatType, inspect.IntType),
    }
    return next((member for member in kind.types if isinstance(member, forms[type(node)])), kind)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"unknown key; {f'did you mean {near[0]}?' if near else 'expected one of: ' + ', '.join(known)}"


def _place(path: str) -> Place:
    """Parse msgspec's `$.models[0].id` into a tuple; `[...]`, an unnamed key, ends it."""
    parts = re.findall(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]", path)
    return tuple(name or int(index) for name, index in parts)


def _plain(what: str) -> str:
    """Translate msgspec's message into the terms of the file: `float | null` becomes a number."""
    what = re.sub(r", got `[a-z]+`$", "", what).replace(" | null`", "`").replace(" | ", " or ")
    for word, plain in WORDS.items():
        what = re.sub(word, plain, what)
    return what.replace("`", "")
