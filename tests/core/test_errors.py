"""The error tree: default messages, and the service's reply for each error."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import runpod_worker
from runpod_worker.core import errors
from runpod_worker.core.errors import CheckFailed, JobError, JobStopped, RunpodWorkerError, ServiceRefusal, TooLarge
from runpod_worker.net.connector import AddressRefused
from runpod_worker.service.http.guard import SourceRefused, WrongType
from runpod_worker.service.http.requests import MethodNotAllowed, RouteNotFound
from runpod_worker.worker.handler.chat import Error

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


PLAIN = [kind for kind in CLASSES if not issubclass(kind, JobError | CheckFailed)]
"""Classes whose only argument is a message."""


@pytest.mark.parametrize("kind", PLAIN)
def test_the_first_line_of_the_docstring_is_the_message(kind):
    if issubclass(kind, RunpodWorkerError):
        assert str(kind()) == kind.__doc__.strip().splitlines()[0]
        assert str(kind("field: more")) == "field: more"


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in (CheckFailed, JobStopped)])
def test_no_default_message_names_parts_of_the_code(kind):
    assert str(kind())
    assert "`" not in str(kind())


PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
DEFINED_ELSEWHERE = [AddressRefused, MethodNotAllowed, RouteNotFound, SourceRefused, WrongType, Error]


def test_the_drawing_has_every_error_below_its_base():
    path: dict[int, str | None] = {-1: None}
    drawn = {}
    for line in PAGE.read_text(encoding="utf-8").partition("```text")[2].replace("```", "").splitlines():
        if match := re.match(r"([│├└─ ]*)(\w+)(  |$| +(\(|\d))", line):
            depth = len(match[1]) // 4
            path[depth] = match[2]
            drawn[match[2]] = path[depth - 1]

    assert drawn == {
        kind.__name__: kind.__bases__[0].__name__
        if issubclass(kind, RunpodWorkerError) and kind is not RunpodWorkerError
        else None
        for kind in CLASSES + DEFINED_ELSEWHERE
    }


def test_no_other_module_of_the_package_defines_an_error_of_ours():
    for module in pkgutil.walk_packages(runpod_worker.__path__, "runpod_worker."):
        if "conformance" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    assert _below(RunpodWorkerError) - set(CLASSES) - set(DEFINED_ELSEWHERE) == set()


def _below(kind):
    return {kind}.union(*(_below(each) for each in kind.__subclasses__() if each.__module__.startswith("runpod_w")))


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, ServiceRefusal)])
def test_refusals_are_answers(kind):
    assert 400 <= kind.status <= 599


def test_stop_passes_by_handlers_that_catch_exceptions():
    assert not issubclass(errors.JobStopped, Exception)


def test_job_errors_carry_the_job():
    assert errors.JobFailed("boom", {"id": "j"}).job == {"id": "j"}
    assert errors.JobCancelled().job == {}


def test_too_large_uses_the_platforms_words():
    assert str(TooLarge.over(10 * 2**20)) == "bad request: body: exceeded max body size of 10MiB"
