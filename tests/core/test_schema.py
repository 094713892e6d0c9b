from dataclasses import dataclass, field
from typing import Annotated, TypedDict

import msgspec
import pydantic
import pytest

from runpod_worker.core.errors import InputError
from runpod_worker.core.schema import path_to, validate

Steps = Annotated[int, msgspec.Meta(ge=1, le=150)]


class Struct(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str
    steps: Steps = 25
    tags: list[str] = []
    sizes: dict[str, int] = {}

    def __post_init__(self):
        if not self.prompt:
            raise ValueError("prompt: expected some words, got an empty str")


@dataclass
class Data:
    prompt: str
    tags: list[str] = field(default_factory=list)


class Typed(TypedDict):
    prompt: str


class Model(pydantic.BaseModel):
    prompt: str
    steps: int = pydantic.Field(25, ge=1)


@pytest.mark.parametrize("kind", [Struct, Data, Model])
def test_a_right_input_becomes_the_asked_type(kind):
    made = validate({"prompt": "a cat"}, kind)

    assert isinstance(made, kind)
    assert made.prompt == "a cat"


def test_a_typed_dict_stays_a_dict():
    assert validate({"prompt": "a cat"}, Typed) == {"prompt": "a cat"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"prompt": "a", "steps": 0}, "input.steps: expected int >= 1, got 0 (int)"),
        ({"prompt": "a", "steps": "9"}, "input.steps: expected int, got '9' (str)"),
        ({"prompt": None}, "input.prompt: expected str, got null"),
        ({"prompt": "a", "tags": ["x", 2]}, "input.tags[1]: expected str, got 2 (int)"),
        ({"prompt": "a", "sizes": {"w": "x"}}, "input.sizes[...]: expected int"),
        ({}, "input: object missing required field prompt"),
        ({"prompt": "a", "promt": 1}, "input: object contains unknown field promt"),
        ({"prompt": ""}, "input: prompt: expected some words, got an empty str"),
        ("a cat", "input: expected object, got 'a cat' (str)"),
        ({"prompt": [1] * 100}, "input.prompt: expected str, got [" + "1, " * 19 + "1,... (list)"),
    ],
)
def test_an_error_names_the_place_what_was_expected_and_what_came(value, message):
    with pytest.raises(InputError) as caught:
        validate(value, Struct)

    assert str(caught.value) == message


def test_errors_of_pydantic_read_the_same_and_are_all_named():
    with pytest.raises(InputError) as caught:
        validate({"steps": 0}, Model)

    assert str(caught.value) == (
        "input.prompt: field required; input.steps: input should be greater than or equal to 1, got 0 (int)"
    )


def test_path_to_an_object_compares_identity_not_equality():
    twins = [bytes([97, 97]).decode(), bytes([97, 97]).decode()]
    value = {"a": twins[0], "b": [{"c": twins[1]}]}

    assert path_to(twins[0], value) == "input.a"
    assert path_to(twins[1], value) == "input.b[0].c"
    assert path_to("elsewhere", value) == "input"
