"""Validates a job's input against a schema of plain dicts (protocol C.9)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

Rules = dict[str, Any]


def validate(raw_input: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return `{"validated_input": {...}}` with defaults filled in, or `{"errors": [...]}`.

    Args:
        raw_input: the input.
        schema: a dict of rules for each name: "type" (a type or a tuple of them), "required" (false by default),
            "default" (for optional names) and "constraints" (a function of the value). Rules may be JSON text, which
            is parsed in place.
    """
    errors = [f"Unexpected input. {name} is not a valid input option." for name in raw_input if name not in schema]
    validated = dict(raw_input)
    readable = dict(_read(schema, errors))
    for name, rules in readable.items():
        errors += _presence(name, rules, validated)
    for name, rules in readable.items():
        errors += _value(name, rules, validated)
    return {"errors": errors} if errors else {"validated_input": validated}


def _read(schema: dict[str, Any], errors: list[str]) -> Iterator[tuple[str, Rules]]:
    for name, rules in schema.items():
        if not isinstance(rules, dict):
            with suppress(TypeError, ValueError):
                schema[name] = json.loads(rules)
        if isinstance(schema[name], dict):
            yield name, schema[name]
        else:
            errors.append(f"Schema error, {name} is not a dictionary.")


def _presence(name: str, rules: Rules, validated: dict[str, Any]) -> Iterator[str]:
    """Yield errors for missing names, and fill in defaults."""
    if "type" not in rules:
        yield f"Schema error, missing type for {name}."
    if name in validated:
        return
    if rules.get("required"):
        yield f"{name} is a required input."
    elif "default" in rules:
        validated[name] = rules["default"]
    else:
        yield f"Schema error, missing default value for {name}."


def _value(name: str, rules: Rules, validated: dict[str, Any]) -> Iterator[str]:
    if name in validated and "type" in rules:
        kind, value = rules["type"], validated[name]
        if kind is float and type(value) in (int, float):
            validated[name] = float(value)
        elif not (_like_default(rules, value) or isinstance(value, kind)):
            yield f"{name} should be {kind} type, not {type(value)}."
    if "constraints" in rules and not rules["constraints"](validated.get(name)):
        yield f"{name} does not meet the constraints."


def _like_default(rules: Rules, value: Any) -> bool:
    """Accept a value of the default's type even if "type" differs, for defaults such as None."""
    return "default" in rules and isinstance(value, type(rules["default"]))
