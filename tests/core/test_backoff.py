"""The waits between tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.core.backoff import Backoff, Schedule


def most() -> float:
    return 1.0


@given(st.integers(-5, 10**6), st.floats(0, 1))
def test_wait_is_never_negative_and_never_above_the_cap(tries, chance):
    backoff = Backoff(base_s=0.1, cap_s=30)

    assert 0 <= backoff.delay(tries, lambda: chance) <= 30


def test_longest_wait_doubles_up_to_the_cap():
    backoff = Backoff(base_s=0.5, cap_s=5)

    assert [backoff.delay(tries, most) for tries in range(6)] == [0.5, 1, 2, 4, 5, 5]


def test_jitter_covers_everything_from_zero():
    assert Backoff().delay(3, lambda: 0.0) == 0.0


@pytest.mark.parametrize(("base", "cap"), [(0, 1), (-1, 1), (2, 1)])
def test_backoff_without_sense_is_refused(base, cap):
    with pytest.raises(ValueError, match="base_s"):
        Backoff(base_s=base, cap_s=cap)


def test_schedule_waits_as_listed_then_gives_up():
    schedule = Schedule((5, 15), spread=0.1)

    assert schedule.delay(1, lambda: 0.0) == 5
    assert schedule.delay(2, most) == pytest.approx(16.5)
    assert schedule.delay(3, most) is None


def test_schedule_refuses_negative_waits():
    with pytest.raises(ValueError, match="delays_s"):
        Schedule((1, -1))
