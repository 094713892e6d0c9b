import functools
from dataclasses import dataclass

import pytest

from runpod_worker import Job
from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.declaration import Kind, kind_of, make_handler


def function(job):
    return 1


async def coroutine(job):
    return 1


def generator(job):
    yield 1


async def async_generator(job):
    yield 1


KINDS = {
    Kind.FUNCTION: function,
    Kind.COROUTINE: coroutine,
    Kind.GENERATOR: generator,
    Kind.ASYNC_GENERATOR: async_generator,
}


def wrapped(inner):
    @functools.wraps(inner)
    def outer(*args, **kwargs):
        return inner(*args, **kwargs)

    return outer


def as_object(inner):
    """A callable object whose `__call__` is of the same kind."""
    return type("Handler", (), {"__call__": _as_method(inner)})()


def _as_method(inner):
    return {
        function: lambda self, job: 1,
        coroutine: _Methods.coroutine,
        generator: _Methods.generator,
        async_generator: _Methods.async_generator,
    }[inner]


class _Methods:
    async def coroutine(self, job):
        return 1

    def generator(self, job):
        yield 1

    async def async_generator(self, job):
        yield 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "hidden",
    [
        lambda f: f,
        lambda f: functools.partial(f),
        lambda f: functools.partial(functools.partial(f)),
        wrapped,
        lambda f: functools.partial(wrapped(f)),
        lambda f: wrapped(wrapped(f)),
        as_object,
    ],
    ids=["bare", "partial", "two partials", "wrapped", "partial of wrapped", "wrapped twice", "object"],
)
def test_the_kind_is_seen_through_what_hides_it(kind, hidden):
    assert kind_of(hidden(KINDS[kind])) is kind


def test_bound_methods_are_recognised():
    assert kind_of(_Methods().generator) is Kind.GENERATOR
    assert not make_handler(_Methods().generator).takes_model


@pytest.mark.parametrize(
    ("handler", "takes_model"),
    [
        (lambda job: 1, False),
        (lambda job, model: 1, True),
        (lambda job, model=None: 1, False),
        (lambda *args: 1, False),
        (lambda job, *others: 1, False),
        (lambda job, **options: 1, False),
        (functools.partial(lambda model, job: 1, "model"), False),
        (wrapped(lambda job, model: 1), True),
        (dict, False),
    ],
)
def test_the_model_is_given_to_handlers_that_ask_for_it(handler, takes_model):
    assert make_handler(handler).takes_model is takes_model


@pytest.mark.parametrize("handler", [lambda: 1, lambda a, b, c: 1, lambda job, *, needed: 1])
def test_a_handler_with_the_wrong_arguments_is_refused(handler):
    with pytest.raises(DeclarationError, match=r"expected handler\(job\) or handler\(job, model\)"):
        make_handler(handler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, r"concurrency: expected int >= 1, got 0 \(int\)"),
        ({"concurrency": "2"}, r"concurrency: expected int >= 1, got '2' \(str\)"),
        ({"timeout": -1}, r"timeout: expected seconds >= 0.001, got -1 \(int\)"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(DeclarationError, match=message):
        make_handler(function, **options)


def test_what_is_not_callable_is_refused():
    with pytest.raises(DeclarationError, match="must be a function, got 3"):
        make_handler(3)  # type: ignore[arg-type]


@dataclass
class Input:
    n: int


def test_the_input_type_is_read_from_the_annotation():
    def plain(job: Job[Input]): ...

    def as_text(job: "Job[Input]", model: "NotImportedHere"): ...  # type: ignore[name-defined]  # noqa: F821

    def untyped(job: Job): ...

    def something_else(job: dict): ...

    assert make_handler(plain).input_type is Input
    assert make_handler(as_text).input_type is Input
    assert make_handler(wrapped(plain)).input_type is Input
    assert make_handler(functools.partial(plain)).input_type is Input
    assert make_handler(untyped).input_type is None
    assert make_handler(something_else).input_type is None
    assert make_handler(untyped, input=Input).input_type is Input


def test_an_annotation_that_cannot_be_read_says_what_to_do():
    def handler(job: "Job[Missing]"): ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match=r"Missing.*give the type with @worker.handler\(input="):
        make_handler(handler)
