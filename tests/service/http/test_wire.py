"""Bodies in, views out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.errors import BadRequest
from runpod_worker.core.job import Job, Policy, Status
from runpod_worker.service.http import wire
from runpod_worker.service.settings import ServiceSettings

SETTINGS = ServiceSettings()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    [
        "input",
        "webhook",
        "policy",
        "s3Config",
        "output",
        "error",
        "status",
        "stopPod",
        "stopped",
        "timings",
        "seq",
        "outputs",
        "index",
        "takes",
        "jobs",
        "executionTimeout",
        "ttl",
        "lowPriority",
        "other",
    ]
)
bodies = st.dictionaries(keys, json_values | st.dictionaries(keys, json_values, max_size=3), max_size=6)


def decoders():
    return [
        lambda body: wire.parse_submission(body, SETTINGS),
        wire.parse_report,
        lambda body: wire.parse_report(body, streamed=True),
        wire.parse_chunks,
        wire.parse_release,
    ]


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def refusal(decode, body) -> str | None:
    """Why the body is refused, None if it is not."""
    try:
        decode(body)
    except BadRequest as exc:
        return str(exc)
    return None


@given(st.binary() | bodies.map(encode) | json_values.map(encode) | st.text().map(str.encode))
def test_any_bytes_raise_only_bad_request(body):
    for decode in decoders():
        assert refusal(decode, body) != ""


@given(st.text(alphabet='{}[]",:\\ueE+-.0123456789NaInfityulrs \n\t', max_size=40).map(str.encode))
def test_almost_json_raises_only_bad_request(text):
    for body in (text, b'{"input": ' + text + b', "output": ' + text + b', "error": ' + text + b"}"):
        for decode in decoders():
            assert refusal(decode, body) != ""


@given(json_values)
def test_an_input_is_the_same_in_the_view(value):
    submission = wire.parse_submission(encode({"input": value}), SETTINGS)
    job = Job(id="j", endpoint="e", created_at=0, queued_at=0, status=Status.COMPLETED)

    view = json.loads(wire.render_view(job, source=submission.input, output=encode(value)))

    assert view == {"id": "j", "input": value, "output": value, "status": "COMPLETED"}
    assert wire.parse_stored(submission.body).input == wire.msgspec.Raw(submission.input)


@given(bodies.map(lambda body: {"error": 1} | body).map(encode))
def test_the_error_of_a_view_is_always_a_string(body):
    error = wire.parse_report(body).error
    job = Job(id="j", endpoint="e", created_at=0, queued_at=0, status=Status.FAILED, error=error)

    assert isinstance(json.loads(wire.render_view(job)).get("error", ""), str)


@given(st.integers(), st.integers())
def test_a_policy_is_taken_within_its_bounds_and_refused_outside(timeout, ttl):
    body = encode({"input": 1, "policy": {"executionTimeout": timeout, "ttl": ttl}})
    fits = 5_000 <= timeout <= 604_800_000 and 10_000 <= ttl <= 604_800_000

    refused = refusal(lambda body: wire.parse_submission(body, SETTINGS), body)

    assert (refused is None) == fits
    if refused is None:
        assert wire.parse_submission(body, SETTINGS).policy == Policy(execution_timeout_ms=timeout, ttl_ms=ttl)
    else:
        assert refused.startswith(("policy.executionTimeout: expected", "policy.ttl: expected"))


@pytest.mark.parametrize("policy", [None, {}, {"executionTimeout": None}])
def test_an_absent_policy_is_the_default(policy):
    assert wire.parse_submission(encode({"input": 1, "policy": policy}), SETTINGS).policy == Policy()


def test_bounds_can_be_set():
    loose = ServiceSettings(execution_timeout_bounds_ms=(1, 10))

    submission = wire.parse_submission(encode({"input": 1, "policy": {"executionTimeout": 1}}), loose)
    assert submission.policy.execution_timeout_ms == 1


def test_unknown_keys_are_ignored_and_the_body_is_kept_as_it_came():
    body = b' { "input" : {"a": 1.0} , "later": [1] } '
    submission = wire.parse_submission(body, SETTINGS)

    assert submission.body == body
    assert submission.input == b'{"a": 1.0}'


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 7.0), ("", 7.0), ("500", 1.0), ("1500", 1.5), ("999999999", 300.0), ("-5", 1.0)]
)
def test_a_wait_is_moved_into_its_bounds(text, seconds):
    assert wire.parse_milliseconds("wait", text, 7.0, (1000, 300_000)) == seconds


@pytest.mark.parametrize("text", ["x", "1.5", "--1", "\uff11", "9" * 40, "NaN"])
def test_a_wait_that_is_no_whole_number_is_refused(text):
    with pytest.raises(BadRequest, match="wait: expected milliseconds"):
        wire.parse_milliseconds("wait", text, 7.0, (1000, 300_000))


def test_a_view_shows_every_field_in_alphabetical_order():
    job = Job(
        id="j", endpoint="e", created_at=0, queued_at=1, taken_at=3, ended_at=3.5, status=Status.FAILED, retries=1,
        worker="w", gpu="24", error="e", webhook="https://a.b", attempt=2,
    )  # fmt: skip

    view = wire.render_view(job, source=b"{}", output=b"1", timings=b"{}", webhook=True)

    assert view == (
        b'{"delayTime":2000,"error":"e","executionTime":500,"gpu":"24","id":"j","input":{},"output":1,'
        b'"retries":1,"status":"FAILED","timings":{},"webhook":"https://a.b","workerId":"w"}'
    )
