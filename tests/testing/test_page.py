"""The examples of docs/testing.md are tests that pass."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS)
async def test_example(code: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/testing.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]

    assert tests
    for test in tests:
        result = test()
        if inspect.isawaitable(result):
            await result
