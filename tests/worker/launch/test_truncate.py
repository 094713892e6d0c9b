import pytest

from runpod_worker.worker.launch.local import truncate


@pytest.mark.parametrize("value", [None, 1.5, "a" * 400, list(range(16)), {"a": [{"b": "c"}]}, {}, []])
def test_short_values_stay_as_they_are(value):
    assert truncate(value) == value


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("a" * 1401, "a" * 100 + "… 1,301 more characters"),
        ([[0.5] * 384], [[0.5] * 4 + ["… 380 more"]]),
        ({"a": ["b" * 500] * 2}, {"a": ["b" * 100 + "… 400 more characters"] * 2}),
        ({str(n): n for n in range(60)}, {str(n): n for n in range(50)} | {"…": "… 10 more"}),
    ],
)
def test_long_values_say_what_is_left_out(value, short):
    assert truncate(value) == short
