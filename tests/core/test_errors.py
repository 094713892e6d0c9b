"""The error tree: what each error says by itself, and how the service answers it."""

import inspect

import pytest

from runpod_worker.core import errors
from runpod_worker.core.errors import CheckFailed, JobError, RunpodWorkerError, ServiceRefusal, TooLarge

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


PLAIN = [kind for kind in CLASSES if not issubclass(kind, JobError | CheckFailed)]
"""Those that are made of a message alone."""


@pytest.mark.parametrize("kind", PLAIN)
def test_docstring_is_the_message(kind):
    if issubclass(kind, RunpodWorkerError):
        assert str(kind()) == kind.__doc__.strip()
        assert str(kind("field: more")) == "field: more"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_stands_in_the_drawing(kind):
    assert kind.__name__ in errors.__doc__ or kind is ServiceRefusal


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, ServiceRefusal)])
def test_refusals_are_answers(kind):
    assert 400 <= kind.status <= 599


def test_stop_passes_by_handlers_that_catch_exceptions():
    assert not issubclass(errors.JobStopped, Exception)


def test_job_errors_carry_the_job():
    assert errors.JobFailed("boom", {"id": "j"}).job == {"id": "j"}
    assert errors.JobCancelled().job == {}


def test_too_large_speaks_the_platforms_words():
    assert str(TooLarge.over(10 * 2**20)) == "bad request: body: exceeded max body size of 10MiB"
