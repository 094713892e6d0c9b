import json
import math
import sys
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runpod_worker
from runpod_worker.config import WorkerSettings
from runpod_worker.core.errors import InputError, OutputError
from runpod_worker.core.protocol import MAX_RESULT_BYTES
from runpod_worker.core.text import shorten
from runpod_worker.worker.executor import results
from runpod_worker.worker.executor.results import Outcome

SETTINGS = WorkerSettings(hostname="host", worker_id="worker-1")


@pytest.mark.parametrize("value", [None, "", [], True, 0, "text", [1, {"a": None}], {"output": 1}, {"a": {}}])
def test_any_json_value_is_the_output(value):
    outcome = results.outcome_of_return(value)

    assert json.loads(outcome.output) == value
    assert outcome.error is None
    assert not outcome.refresh


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ({}, Outcome()),
        ({"error": ""}, Outcome()),
        ({"error": None, "a": 1}, Outcome(b'{"a":1}')),
        ({"error": "bad prompt"}, Outcome(error="bad prompt")),
        ({"error": "bad", "seen": 3}, Outcome(b'{"seen":3}', "bad")),
        ({"error": {"code": 7}}, Outcome(error='{"code":7}')),
        ({"error": True}, Outcome(error="true")),
        ({"error": ["ø"]}, Outcome(error='["ø"]')),
        ({"refresh_worker": True}, Outcome(refresh=True)),
        ({"refresh_worker": True, "a": 1}, Outcome(b'{"a":1}', refresh=True)),
        ({"refresh_worker": False, "a": 1}, Outcome(b'{"a":1}')),
        ({"refresh_worker": 1, "error": "x"}, Outcome(None, "x", refresh=True)),
    ],
)
def test_marks_in_a_returned_dict_decide(value, outcome):
    before = dict(value)

    assert results.outcome_of_return(value) == outcome
    assert value == before


def test_marks_count_only_at_the_top_of_a_dict():
    assert results.outcome_of_return([{"error": "x"}]).error is None
    assert results.outcome_of_return({"a": {"error": "x"}}).error is None


@dataclass
class Picture:
    pixels: object


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"images": [np.zeros(3)]}, "output.images[0] is a numpy.ndarray; return JSON values"),
        (object(), "output is an object; return JSON values, or save files with job.save"),
        ({"a": {"b": [1, 2, {"c": print}]}}, "output.a.b[2].c is a builtin_function_or_method"),
        ({"a": Picture(1j)}, "output.a.pixels is a complex"),
        ({"a": {(1, 2): 3}}, "output.a is a dict with keys of type tuple; keys of JSON objects are strings"),
        ({"text": "\ud800"}, "output.text is a str that is not valid Unicode"),
        ({"error": {"why": object()}}, "error.why is an object"),
    ],
)
def test_what_is_not_json_fails_with_its_place(value, message):
    outcome = results.outcome_of_return(value)

    assert outcome.error.startswith(message)
    assert outcome.output is None


def test_a_value_that_contains_itself_fails():
    value: dict[str, object] = {}
    value["self"] = value

    assert "contains itself" in results.outcome_of_return({"a": value}).error


def test_an_output_over_the_limit_fails_and_says_what_to_do():
    assert "save large parts as files with job.save" in results.outcome_of_return("x" * MAX_RESULT_BYTES).error
    assert results.outcome_of_return("x" * (MAX_RESULT_BYTES - 2)).error is None


def test_a_chunk_over_the_limit_is_refused():
    with pytest.raises(OutputError, match=r"a chunk is 20\.0 MiB"):
        results.encode_chunk("x" * MAX_RESULT_BYTES)


def test_numbers_of_numpy_are_numbers():
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(2.5), "d": np.bool_(True), "e": np.array(7)}

    assert results.outcome_of_return(value).output == b'{"a":0.5,"b":3,"c":2.5,"d":true,"e":7}'


def test_nan_and_infinity_become_null():
    assert results.outcome_of_return([math.nan, math.inf, -math.inf]).output == b"[null,null,null]"


def test_an_exception_becomes_json_with_the_fields_of_the_sdk():
    try:
        int("bøøm")
    except ValueError as error:
        fields = json.loads(results.outcome_of_exception(error, SETTINGS).error)

    assert fields["error_type"] == "<class 'ValueError'>"
    assert fields["error_message"].endswith("bøøm'")
    assert fields["error_traceback"].startswith("Traceback (most recent call last):\n  File")
    assert fields["error_traceback"].endswith(fields["error_message"] + "\n")
    assert (fields["hostname"], fields["worker_id"]) == ("host", "worker-1")
    assert (fields["runpod_version"], fields["runpod_worker_version"]) == ("1.12.0", runpod_worker.__version__)


def test_a_long_error_keeps_its_type_and_its_last_frames():
    def fail(depth):
        if depth:
            fail(depth - 1)
        raise KeyError("x" * 25_000_000)

    try:
        fail(500)
    except KeyError as error:
        text = results.outcome_of_exception(error, SETTINGS).error

    fields = json.loads(text)
    assert fields["error_type"] == "<class 'KeyError'>"
    assert fields["error_message"].startswith("'xxx")
    assert "characters are left out here" in fields["error_message"]
    assert fields["error_traceback"].startswith("Traceback (most recent call last):\n  File")
    assert len(text) < results.MAX_ERROR_BYTES


def test_the_error_of_a_deep_recursion_takes_little_memory():
    def recurse():
        recurse()

    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(100_000)
        recurse()
    except RecursionError as raised:
        error = raised
    finally:
        sys.setrecursionlimit(before)
    tracemalloc.start()
    try:
        fields = json.loads(results.outcome_of_exception(error, SETTINGS).error)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert fields["error_type"] == "<class 'RecursionError'>"
    assert "in recurse" in fields["error_traceback"]
    assert peak < 5_000_000


def test_a_shortened_text_stays_within_its_bytes():
    for text in ("ab" * 50, "€" * 100, "\ud800" * 200, "a€" * 70):
        kept = shorten(text, 90)
        head, note, tail = kept.split("\n")
        assert len((head + tail).encode()) <= 90
        assert "are left out here" in note
    assert shorten("€" * 30, 90) == "€" * 30


def test_what_the_caller_did_wrong_is_said_in_plain_words():
    assert results.outcome_of_exception(InputError("input.n: expected int"), SETTINGS).error == "input.n: expected int"


def test_an_exception_that_cannot_be_shown_still_makes_an_error():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    fields = json.loads(results.outcome_of_exception(Broken(), SETTINGS).error)

    assert "__str__ raised RuntimeError" in fields["error_message"]
    assert json.loads(results.outcome_of_exception(ValueError("\ud800"), SETTINGS).error)["error_message"] == "?"


def test_a_stream_comes_to_its_chunks_or_an_empty_list():
    assert results.outcome_of_stream(None) == Outcome(b"[]")
    assert results.outcome_of_stream([b"1", b'{"a":2}']) == Outcome(b'[1,{"a":2}]')
    assert results.outcome_of_stream(None, "bad") == Outcome(error="bad")
    assert results.outcome_of_stream([b"1"], "bad") == Outcome(b"[1]", "bad")
    assert "at most 20 MiB" in results.outcome_of_stream([bytes(MAX_RESULT_BYTES)]).error


def test_a_yielded_dict_with_an_error_is_one():
    assert results.yielded_error({"error": {"m": "x"}}) == '{"m":"x"}'
    assert results.yielded_error({"error": ""}) is None
    assert results.yielded_error("error") is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_values_come_out_as_they_went_in(value):
    assert json.loads(results.encode(value)) == value


@given(st.recursive(st.builds(object) | st.integers() | st.text(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_no_value_makes_anything_but_an_outcome(value):
    outcome = results.outcome_of_return(value)

    assert (outcome.error is None) != (outcome.output is None)
