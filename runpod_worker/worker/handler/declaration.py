"""The validated handler, model and hooks of a worker. Launch and executor get only these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runpod_worker.core.errors import DeclarationError
from runpod_worker.worker.handler.kinds import Function, Handler, count_arguments


@dataclass(frozen=True, slots=True)
class Hook:
    """A declared function, and its number of arguments."""

    function: Function
    arguments: int

    @classmethod
    def of(cls, function: Any, max_arguments: int, signature: str) -> Hook:
        """Check a declared function.

        Raises:
            DeclarationError: it is not a function, or takes more arguments. The error quotes `signature`.
        """
        if not callable(function):
            raise DeclarationError(f"expected a function {signature}, got {function!r} ({type(function).__name__})")
        return cls(function, count_arguments(function, 0, max_arguments, signature))

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
