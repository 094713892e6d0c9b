"""The depth of JSON, without recursion."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.nesting import MAX_JSON_DEPTH, check_depth, json_depth

TEXT = st.text(st.sampled_from('[]{}"\\, ae\u00e9\n'), max_size=8)
JSON = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_the_depth_is_that_of_the_value_whatever_its_strings_contain(value, ascii_only, indent):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()

    assert json_depth(body) == depth_of(value)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"[":', b"}]")])
def test_one_level_too_many_is_refused_and_named(opening, closing):
    levels = MAX_JSON_DEPTH // (2 if opening.startswith(b"[{") else 1)
    check_depth(opening * levels + b"1" + closing * levels, ValueError)

    with pytest.raises(ValueError, match=f"expected at most {MAX_JSON_DEPTH} levels .* found {MAX_JSON_DEPTH + 1}"):
        check_depth(b"[" + opening * levels + b"1" + closing * levels + b"]", ValueError)


@pytest.mark.parametrize("body", [b"[" * 2_000_000, b'{"a":' * 400_000, b'["\\"[",' + b"[" * 3000])
def test_a_valid_beginning_is_measured_however_it_goes_on(body):
    with pytest.raises(ValueError, match="expected at most"):
        check_depth(body, ValueError)


def test_many_brackets_side_by_side_or_in_strings_are_not_deep():
    check_depth(json.dumps([[i] for i in range(100_000)] + ["[[[" * 1000, '\\"[' * 1000]).encode(), ValueError)
