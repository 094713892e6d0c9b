"""The user's handler: of which kind it is, how it wants to be called, and with which options.

The kind is looked for behind partials, callable objects and decorators; it decides where the handler runs (main thread,
threads, event loop). What a call returned decides how it is treated: a plain function may hand back a generator.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.job import Job

Function = Callable[..., Any]


class Kind(StrEnum):
    """The four kinds of handlers."""

    FUNCTION = "function"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async_generator"

    @property
    def on_loop(self) -> bool:
        """Whether such handlers run as tasks of one event loop."""
        return self in (Kind.COROUTINE, Kind.ASYNC_GENERATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A handler as declared.

    `input_type` None: the input is taken as it comes. `takes_model`: it is called with the job and the model.
    `modifier`: makes the next number of slots from the one before, which is `concurrency` at first.
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


def declared(
    function: Function,
    *,
    input: Any = None,  # noqa: A002 - the name users write
    concurrency: int | Callable[[int], int] = 1,
    timeout: float | None = None,
    aggregate: bool = False,
    refresh: bool = False,
) -> Handler:
    """Look at a function and its options.

    Raises:
        DeclarationError: it cannot be called with a job, or an option makes no sense.
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
        takes_model=arguments(function, 1, 2, "handler(job) or handler(job, model)") == 2,
        input_type=input if input is not None else _annotated_input(function),
        concurrency=number,
        modifier=modifier,
        timeout_s=timeout,
        aggregate=aggregate,
        refresh=refresh,
    )


def _check(name: str, value: Any, kind: Any, least: float) -> None:
    if value is not None and (not isinstance(value, kind) or value < least):
        wanted = getattr(kind, "__name__", "seconds")
        raise DeclarationError(f"{name}: expected {wanted} >= {least}, got {value!r} ({type(value).__name__})")


def kind_of(function: Function) -> Kind:
    """The kind of a handler, seen through partials, `__call__` and `functools.wraps`."""
    seen: Any = function
    while seen is not None:
        seen = _bare(seen)
        if inspect.isasyncgenfunction(seen):
            return Kind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(seen):
            return Kind.COROUTINE
        if inspect.isgeneratorfunction(seen):
            return Kind.GENERATOR
        seen = getattr(seen, "__wrapped__", None)
    return Kind.FUNCTION


def _bare(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the bound method, to look at it


def arguments(function: Function, least: int, most: int, wanted: str) -> int:
    """How many positional arguments to call it with: as many as it takes, from `least` to `most`.

    Raises:
        DeclarationError: it takes fewer or needs more.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some C functions do not tell
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
    """Positional arguments by name without a default; `*args` of a decorator stands for the job alone."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in kinds and one.default is one.empty for one in signature.parameters.values())


def _annotations(function: types.FunctionType) -> dict[str, Any]:
    """The annotations as far as they can be read: some may name what exists for type checkers alone."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return function.__annotations__


def _annotated_input(function: Function) -> Any:
    """`MyInput` of a first argument annotated `Job[MyInput]`, else None."""
    bare = inspect.unwrap(_bare(function))
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
