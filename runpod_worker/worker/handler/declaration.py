"""What a user declared about a worker, validated. Launch and executor get only these.

The kind of a handler is detected through partials, callable objects and decorators. It decides where the handler runs:
main thread, threads or event loop. Each call's result decides whether it is awaited, streamed or sent as the output,
because even a plain function may return a generator.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.job import Job

Function = Callable[..., Any]

WRAPPING_FILES: set[str] = set()
"""Our files that only wrap a handler. They hold no lock, and may be interrupted like the handler."""


class Kind(StrEnum):
    """The four kinds of handlers."""

    FUNCTION = "function"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async_generator"

    @property
    def on_loop(self) -> bool:
        """Whether these handlers run as tasks of an event loop."""
        return self in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)

    @property
    def is_generator(self) -> bool:
        """Whether these handlers yield chunks."""
        return self in (Kind.GENERATOR, Kind.ASYNC_GENERATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A handler as declared.

    `input_type` None: the input is not validated. `takes_model`: the arguments are the job and the model. `modifier`
    gets the current number of slots and returns the next; `concurrency` is the first.
    """

    function: Function
    kind: Kind
    takes_model: bool
    input_type: Any = None
    concurrency: int = 1
    modifier: Callable[[int], int] | None = None
    timeout_s: float | None = None
    aggregate: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """A declared function, and its number of arguments."""

    function: Function
    arguments: int

    @classmethod
    def of(cls, function: Any, signature: str) -> Hook:
        """Check a declared function.

        Raises:
            DeclarationError: it is not a function, or needs more than one argument. The error quotes `signature`.
        """
        if not callable(function):
            raise DeclarationError(f"expected a function {signature}, got {function!r} ({type(function).__name__})")
        return cls(function, count_arguments(function, 0, 1, signature))

    def call(self, *args: Any) -> Any:
        """Call the function with the arguments that it takes."""
        return self.function(*args[: self.arguments])


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Everything that a user declared about a worker."""

    handler: Handler
    model: Hook | None = None
    warmups: list[Hook] = field(default_factory=list)
    checks: list[Hook] = field(default_factory=list)
    shutdowns: list[Hook] = field(default_factory=list)


def make_handler(
    function: Function,
    *,
    input: Any = None,  # noqa: A002 - the name users write
    concurrency: int | Callable[[int], int] = 1,
    timeout: float | None = None,
    aggregate: bool = False,
    refresh: bool = False,
) -> Handler:
    """Return the handler for a function and its options.

    Raises:
        DeclarationError: the function cannot be called with a job, or an option is invalid.
    """
    if not callable(function):
        raise DeclarationError(f"a handler must be a function, got {function!r} ({type(function).__name__})")
    modifier = concurrency if callable(concurrency) else None
    number = 1 if callable(concurrency) else concurrency
    _check("concurrency", number, int, 1)
    _check("timeout", timeout, int | float, 0.001)
    return Handler(
        function=function,
        kind=kind_of(function),
        takes_model=count_arguments(function, 1, 2, "handler(job) or handler(job, model)") == 2,
        input_type=input if input is not None else _annotated_input(function),
        concurrency=number,
        modifier=modifier,
        timeout_s=timeout,
        aggregate=aggregate,
        refresh=refresh,
    )


HANDLER_OPTIONS = frozenset(inspect.signature(make_handler).parameters) - {"function"}
"""The options that `make_handler` accepts."""


def _check(name: str, value: Any, kind: Any, least: float) -> None:
    if value is not None and (not isinstance(value, kind) or value < least):
        wanted = getattr(kind, "__name__", "seconds")
        raise DeclarationError(f"{name}: expected {wanted} >= {least}, got {value!r} ({type(value).__name__})")


def kind_of(function: Function) -> Kind:
    """The kind of a handler, detected through partials, `__call__` and `functools.wraps`."""
    inner: Any = function
    while inner is not None:
        inner = _unwrap_call(inner)
        if inspect.isasyncgenfunction(inner):
            return Kind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(inner):
            return Kind.COROUTINE
        if inspect.isgeneratorfunction(inner):
            return Kind.GENERATOR
        inner = getattr(inner, "__wrapped__", None)
    return Kind.FUNCTION


def _unwrap_call(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the bound method, to inspect it


def count_arguments(function: Function, least: int, most: int, wanted: str) -> int:
    """The number of positional arguments to call the function with, from `least` to `most`.

    Raises:
        DeclarationError: the function takes fewer arguments or needs more.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some C functions have no signature
        return least
    for count in range(most, least - 1, -1):
        if _binds(signature, count) and count <= max(least, _declared_positional(signature)):
            return count
    name = getattr(function, "__name__", type(function).__name__)
    raise DeclarationError(f"{name}{signature}: expected {wanted}")


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _declared_positional(signature: inspect.Signature) -> int:
    """The number of named positional arguments without a default. A decorator's `*args` adds none."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        argument.kind in kinds and argument.default is argument.empty for argument in signature.parameters.values()
    )


def _annotations(function: types.FunctionType) -> dict[str, Any]:
    """The annotations that can be read; some may exist only for type checkers."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return function.__annotations__


def _annotated_input(function: Function) -> Any:
    """`MyInput` if the first argument is annotated `Job[MyInput]`, else None."""
    bare = inspect.unwrap(_unwrap_call(function))
    bare = getattr(bare, "__func__", bare)
    if not isinstance(bare, types.FunctionType):
        return None
    annotation = next((hint for name, hint in _annotations(bare).items() if name != "return"), None)
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", "Job[")
    if annotation is None or "Job[" not in text:
        return None
    alone = types.SimpleNamespace(__annotations__={"job": annotation})
    try:
        hint = typing.get_type_hints(alone, globalns=bare.__globals__, include_extras=True)["job"]
    except NameError as error:
        raise DeclarationError(
            f"{bare.__name__}: the annotation {annotation!r} cannot be read here ({error}); "
            "give the type with @worker.handler(input=...)"
        ) from error
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Job else None
