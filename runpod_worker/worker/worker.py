"""What a user declares: one `Worker`, its handler, model and hooks; and `start`, which runs it wherever it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, overload

from runpod_worker.config import channel_fd, worker_settings
from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.kinds import Function, Handler, arguments, declared

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Hook:
    """A declared function and how many arguments it is called with."""

    function: Function
    arguments: int

    def call(self, *args: Any) -> Any:
        """Call it with as many of these as it takes."""
        return self.function(*args[: self.arguments])


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Everything a worker declared, checked."""

    handler: Handler
    model: Hook | None = None
    warmups: list[Hook] = field(default_factory=list)
    checks: list[Hook] = field(default_factory=list)
    shutdowns: list[Hook] = field(default_factory=list)


class Worker:
    """A handler and what it needs, ready to run at the desk, behind a job service, or on the platform's cloud.

    worker = Worker()

    @worker.handler
    def handler(job):
        return job["input"]

    worker.start()
    """

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._model: Hook | None = None
        self._warmups: list[Hook] = []
        self._checks: list[Hook] = []
        self._shutdowns: list[Hook] = []

    @overload
    def handler(self, function: F, /) -> F: ...

    @overload
    def handler(
        self,
        /,
        *,
        input: Any = None,
        concurrency: int | Callable[[int], int] = 1,
        timeout: float | None = None,
        aggregate: bool = False,
        refresh: bool = False,
    ) -> Callable[[F], F]: ...

    def handler(self, function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
        """Declare the handler, `handler(job)` or `handler(job, model)`: a function, coroutine, or generator of either.

        Args:
            function: the handler, when used as a bare decorator.
            options: any of
                input: the type the input must have (dataclass, TypedDict, msgspec.Struct, pydantic model), checked
                    before the handler is called; `Job[MyInput]` as annotation does the same.
                concurrency: jobs at once: threads for a function, tasks of one event loop for a coroutine. For
                    coroutines it may be a function that makes the next number from the current one; it is asked
                    whenever a job comes or goes, and every second while jobs run.
                timeout: seconds a job may run.
                aggregate: what a generator yields is also collected into the output.
                refresh: replace the worker after each job.

        Raises:
            DeclarationError: there is a handler already, or this cannot be one.
        """
        if function is None:
            return lambda function: self._declare(function, options)
        return self._declare(function, options)

    def _declare(self, function: F, options: dict[str, Any]) -> F:
        handler = declared(function, **options)
        if self._handler is not None:
            raise DeclarationError(f"{_name(function)}: the handler is {_name(self._handler.function)} already")
        self._handler = handler
        return function

    def model(self, function: F) -> F:
        """Declare what loads the model: called once per device before the first job, with the device or nothing.

        The device is a `torch.device` where torch is installed, else a name such as "cuda:0" or "cpu".
        """
        if self._model is not None:
            raise DeclarationError(f"{_name(function)}: the model is loaded by {_name(self._model.function)} already")
        self._model = _hook(function, 1, "load(device) or load()")
        return function

    def warmup(self, function: F) -> F:
        """Declare a warm-up before the first job: it returns an example input, or a list of them, for the handler.

        Called with the model or nothing; one that warms up by itself returns nothing.
        """
        self._warmups.append(_hook(function, 1, "warmup(model) or warmup()"))
        return function

    def check(self, function: F) -> F:
        """Declare a fitness check before the first job, called with the model or nothing: raising means unfit."""
        self._checks.append(_hook(function, 1, "check(model) or check()"))
        return function

    def shutdown(self, function: F) -> F:
        """Declare what runs after the last job, called with the model or nothing."""
        self._shutdowns.append(_hook(function, 1, "shutdown(model) or shutdown()"))
        return function

    def declaration(self) -> Declaration:
        """What was declared.

        Raises:
            DeclarationError: there is no handler, or it wants a model that is not declared.
        """
        if self._handler is None:
            raise DeclarationError("there is no handler: put @worker.handler above a function that takes a job")
        if self._handler.takes_model and self._model is None:
            raise DeclarationError(
                f"{_name(self._handler.function)} asks for a model: put @worker.model above the function that loads it"
            )
        return Declaration(
            handler=self._handler,
            model=self._model,
            warmups=list(self._warmups),
            checks=list(self._checks),
            shutdowns=list(self._shutdowns),
        )

    def start(self, **settings: object) -> NoReturn:
        """Run, and leave the process at the end.

        As a child of an agent it runs that agent's jobs; with a job service in the settings (`url=`, environment) it
        starts an agent and runs jobs until told to stop; else it runs the handler once, on test_input.json or
        `--test_input`. Any setting may be given by name.
        """
        fd = channel_fd()
        if fd is not None:
            from runpod_worker.worker.executor.main import serve

            sys.exit(serve(self, fd, settings=worker_settings(settings)))
        from runpod_worker.worker.launch.modes import start

        sys.exit(start(self, settings))


def _hook(function: Any, most: int, wanted: str) -> Hook:
    if not callable(function):
        raise DeclarationError(f"expected a function {wanted}, got {function!r} ({type(function).__name__})")
    return Hook(function, arguments(function, 0, most, wanted))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
