"""docs/logging.md lists every log event, and every event has the same shape."""

import ast
import re
from pathlib import Path

from tools import logging_docs

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"
SHAPE = re.compile(r"[a-z_]+\.[a-z_]+")

PENDING: set[str] = set()


def test_the_committed_page_is_the_codes() -> None:
    assert PAGE.read_text(encoding="utf-8") == logging_docs.page(), "run: make docs"


def test_every_event_is_a_literal_of_one_noun_and_one_verb() -> None:
    wrong = {
        f"{module} {ast.unparse(event)}"
        for module, tree in logging_docs.sources()
        for _, event in logging_docs.calls(tree)
        if not (isinstance(event, ast.Constant) and SHAPE.fullmatch(str(event.value)))
    }

    assert wrong - PENDING == set()


def test_fields_are_read_through_variables_and_merged() -> None:
    event = logging_docs.events()["concurrency.refused"]

    assert {"expected", "slots"} <= event.fields.keys()
    assert event.modules == {"worker.executor.runners"}
