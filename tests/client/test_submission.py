"""Whole requests and bare inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from runpod_worker.client.submission import as_request, encode_json
from runpod_worker.core.errors import BadRequest


@pytest.mark.parametrize(
    "value",
    [
        {"input": {"prompt": "a cat"}},
        {"input": {}},
        {"input": None},
        {"input": 0},
        {"input": {}, "webhook": "https://example.com", "policy": {"ttl": 10_000}, "s3Config": {}, "webhookV2": "x"},
    ],
)
def test_input_with_known_keys_only_is_a_whole_request(value: Any) -> None:
    assert as_request(value) is value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"prompt": "a cat"},
        {"input": "read this aloud", "voice": "low"},
        {"webhook": "https://example.com"},
        {"policy": {"ttl": 10_000}, "prompt": "a cat"},
        ["input"],
        "input",
        7,
        None,
    ],
)
def test_anything_else_is_the_input(value: Any) -> None:
    assert as_request(value) == {"input": value}


def test_request_is_sent_as_compact_utf8_json() -> None:
    assert (
        encode_json({"input": {"prompt": "bøøm", "raw": b"abc"}}) == '{"input":{"prompt":"bøøm","raw":"YWJj"}}'.encode()
    )


def test_dataclasses_can_be_inputs() -> None:
    @dataclass
    class Prompt:
        text: str

    assert encode_json({"input": Prompt("a cat")}) == b'{"input":{"text":"a cat"}}'


def test_a_value_that_is_not_json_is_named_by_its_path() -> None:
    with pytest.raises(BadRequest, match=r"^input\.pictures\[1\]: object cannot be sent as JSON"):
        encode_json({"input": {"pictures": ["a", object()]}})


def test_an_input_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop

    with pytest.raises(BadRequest, match="dict cannot be sent as JSON"):
        encode_json({"input": loop})
