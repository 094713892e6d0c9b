"""docs/logging.md lists every log event, and every event has the same shape."""

import ast
import json
import logging
import re
from pathlib import Path

from runpod_worker.log import JsonFormatter, TextFormatter
from tools import logging_docs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "logging.md"
SHAPE = re.compile(r"[a-z_]+\.[a-z_]+")


def test_the_committed_page_is_the_codes() -> None:
    assert PAGE.read_text(encoding="utf-8") == logging_docs.page(), "run: make docs"


def test_every_event_is_a_literal_of_one_noun_and_one_verb() -> None:
    wrong = {
        f"{module} {ast.unparse(event)}"
        for module, tree in logging_docs.sources()
        for _, event in logging_docs.calls(tree)
        if not (isinstance(event, ast.Constant) and SHAPE.fullmatch(str(event.value)))
    }

    assert wrong == set()


def test_fields_are_read_through_variables_and_merged() -> None:
    event = logging_docs.events()["concurrency.refused"]

    assert {"expected", "slots"} <= event.fields.keys()
    assert event.modules == {"worker.executor.runners"}


def test_the_changelog_renames_to_events_that_exist() -> None:
    table = (
        (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("### Renamed log events")[2].partition("###")[0]
    )
    renamed = dict(re.findall(r"\| `([^`]+)` \| `([^`]+)` \|", table))
    events = logging_docs.events().keys()

    assert renamed, "the table is missing"
    assert set(renamed.values()) <= events
    assert not renamed.keys() & events


def test_a_value_from_outside_cannot_forge_a_line_or_break_one() -> None:
    record = logging.makeLogRecord({"msg": "job.taken", "worker": "w\n12:00:00 INFO forged\x1b[2J\u2028\udcff\x85"})

    text, as_json = TextFormatter().format(record), JsonFormatter().format(record)

    assert text.endswith(r"worker=w\n12:00:00 INFO forged\x1b[2J\u2028\udcff\x85")
    assert len(as_json.encode().splitlines()) == 1
    assert json.loads(as_json)["worker"] == record.__dict__["worker"]
