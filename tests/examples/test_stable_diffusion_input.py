"""Wrong input is refused before the model is asked, and the refusal names the field."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from runpod_worker import InputError
from runpod_worker.core.schema import validate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stable_diffusion")]

GOOD = {"prompt": "a red circle"}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("prompt", "", "str of length >= 1, got '' (str)"),
        ("prompt", "  \n", "got '  \\n' (str)"),
        ("prompt", None, "str, got null"),
        ("prompt", 7, "str, got 7 (int)"),
        ("prompt", ["a circle", "a star"], "str, got ['a circle', 'a star'] (list)"),
        ("negative_prompt", False, "str, got False (bool)"),
        ("steps", 0, "int >= 1, got 0 (int)"),
        ("steps", 151, "int <= 150, got 151 (int)"),
        ("steps", "20", "int, got '20' (str)"),
        ("steps", 2.5, "int, got 2.5 (float)"),
        ("guidance", -1, "float >= 0.0, got -1 (int)"),
        ("guidance", 31, "float <= 30.0, got 31 (int)"),
        ("guidance", "high", "float, got 'high' (str)"),
        ("width", 100, "int that's a multiple of 8, got 100 (int)"),
        ("width", 0, "int >= 64, got 0 (int)"),
        ("height", 4096, "int <= 2048, got 4096 (int)"),
        ("height", "96", "int | null, got '96' (str)"),
        ("seed", -1, "int >= 0, got -1 (int)"),
        ("seed", 2**32, "int <= 4294967295, got 4294967296 (int)"),
        ("seed", 1.5, "int | null, got 1.5 (float)"),
        ("num_images", 0, "int >= 1, got 0 (int)"),
        ("num_images", 9, "int <= 8, got 9 (int)"),
    ],
)
def test_wrong_field_is_named(handler_module: ModuleType, field: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        validate({**GOOD, field: value}, handler_module.Request)

    assert str(refused.value).startswith(f"input.{field}: expected ")
    assert expected in str(refused.value)


@pytest.mark.parametrize(("given", "named"), [({}, "prompt"), ({**GOOD, "stepz": 20}, "stepz")])
def test_missing_and_unknown_fields_are_named(handler_module: ModuleType, given: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        validate(given, handler_module.Request)


def test_prompt_alone_is_enough(handler_module: ModuleType) -> None:
    request = validate(GOOD, handler_module.Request)

    assert (request.steps, request.num_images, request.seed, request.width) == (25, 1, None, None)


def test_handler_asks_for_this_input(handler_module: ModuleType) -> None:
    assert handler_module.worker.declaration().handler.input_type is handler_module.Request
