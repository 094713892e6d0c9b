"""Error classes at the path of RunPod's SDK. The client of this package raises its own errors instead."""

from __future__ import annotations

__all__ = ["AuthenticationError", "QueryError", "RunPodError"]


class RunPodError(Exception):
    """The base of the SDK's errors."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message or super().__str__()


class AuthenticationError(RunPodError):
    """The key is wrong."""


class QueryError(RunPodError):
    """A query of the SDK's API failed."""

    def __init__(self, message: str | None = None, query: str | None = None) -> None:
        super().__init__(message)
        self.query = query
