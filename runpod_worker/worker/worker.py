"""`Worker`: users declare a handler, a model and hooks, and start it. No lower module of `worker` knows this class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from runpod_worker.config import channel_fd, worker_settings
from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.declaration import HANDLER_OPTIONS, Declaration, Handler, Hook, make_handler

if TYPE_CHECKING:
    from runpod_worker.worker.launch.once import OnceResult, Session

F = TypeVar("F", bound=Callable[..., Any])


class Worker:
    """A handler with its model and hooks, ready to run on your machine, behind a job service, or on RunPod's cloud.

    worker = Worker()

    @worker.handler
    def handler(job):
        return job["input"]

    worker.start()
    """

    def __init__(self) -> None:
        self._handler: Handler | None = None
        self._model: Hook | None = None
        self._hooks: dict[str, list[Hook]] = {"warmups": [], "checks": [], "shutdowns": []}
        self._session: Session | None = None

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
                input: the type of the input (dataclass, TypedDict, msgspec.Struct, pydantic model). The worker
                    validates the input before it calls the handler. The annotation `Job[MyInput]` does the same.
                concurrency: concurrent jobs: threads for a function, tasks of one event loop for a coroutine. For
                    coroutines it may be a function that makes the next number from the current one; it is called
                    whenever a job comes or goes, and every second while jobs run. In several threads, a stop reaches a
                    function at its next yield or its next call of a method of `job`. A function that does neither is
                    killed with its process after the grace period.
                timeout: seconds a job may run.
                aggregate: the output is the list of everything a generator yields.
                refresh: replace the worker after each job.

        Raises:
            DeclarationError: the worker has a handler already, `function` cannot be a handler, or an option is unknown.
        """
        if unknown := sorted(options.keys() - HANDLER_OPTIONS):
            known = ", ".join(sorted(HANDLER_OPTIONS))
            raise DeclarationError(f"handler: expected the options {known}, got {unknown[0]!r}")
        if function is None:
            return lambda function: self._declare(function, options)
        return self._declare(function, options)

    def _declare(self, function: F, options: dict[str, Any]) -> F:
        handler = make_handler(function, **options)
        if self._handler is not None:
            raise DeclarationError(f"{_name(function)}: the handler is {_name(self._handler.function)} already")
        self._handler = handler
        return function

    def model(self, function: F) -> F:
        """Declare the function that loads the model, called once before the first job with the device or nothing.

        The device is a `torch.device` if torch is installed, else a name such as "cuda:0" or "cpu".
        """
        if self._model is not None:
            raise DeclarationError(f"{_name(function)}: the model is loaded by {_name(self._model.function)} already")
        self._model = Hook.of(function, "load(device) or load()")
        return function

    def warmup(self, function: F) -> F:
        """Declare a warm-up before the first job. It returns an example input, or a list of them, for the handler.

        It is called with the model or nothing. A function that warms up by itself returns None.
        """
        self._hooks["warmups"].append(Hook.of(function, "warmup(model) or warmup()"))
        return function

    def check(self, function: F) -> F:
        """Declare a fitness check, called before the first job with the model or nothing. It fails by raising."""
        self._hooks["checks"].append(Hook.of(function, "check(model) or check()"))
        return function

    def shutdown(self, function: F) -> F:
        """Declare a function that runs after the last job, called with the model or nothing."""
        self._hooks["shutdowns"].append(Hook.of(function, "shutdown(model) or shutdown()"))
        return function

    def declaration(self) -> Declaration:
        """Return everything declared so far.

        Raises:
            DeclarationError: the worker has no handler, or the handler takes a model that is not declared.
        """
        if self._handler is None:
            raise DeclarationError("there is no handler: put @worker.handler above a function that takes a job")
        if self._handler.takes_model and self._model is None:
            raise DeclarationError(
                f"{_name(self._handler.function)} asks for a model: put @worker.model above the function that loads it"
            )
        hooks = {name: list(hooks) for name, hooks in self._hooks.items()}
        return Declaration(handler=self._handler, model=self._model, **hooks)

    def run_once(
        self,
        input: Any,  # noqa: A002 - the word users know
        *,
        timeout_s: float | None = None,
        cancel_after_s: float | None = None,
    ) -> OnceResult:
        """Run one job in this process, for tests, as `runpod_worker.testing.run_once` describes it."""
        declaration = self.declaration()
        if self._session is None:
            from runpod_worker.worker.launch.once import Session

            self._session = Session(declaration)
        return self._session.run(input, timeout_s=timeout_s, cancel_after_s=cancel_after_s)

    def start(self, **settings: object) -> NoReturn:
        """Run the handler, then exit the process.

        A process that an agent started runs that agent's jobs. With a job service in the settings (`url=` or the
        environment) it starts an agent and runs jobs until SIGTERM or Ctrl-C. Otherwise it runs the handler once, on
        test_input.json or `--test_input`. Any setting may be given by name.
        """
        fd = channel_fd()
        if fd is not None:
            from runpod_worker.worker.executor.main import serve

            sys.exit(serve(self.declaration, fd, settings=worker_settings(settings)))
        from runpod_worker.worker.launch.modes import start

        sys.exit(start(self.declaration, settings))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
