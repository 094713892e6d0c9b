"""The common part of `Job` and `AsyncioJob`: their state, and their calls as steps."""

from __future__ import annotations

from .access import require_id
from .calls import Calls, View, limit, output_of
from .exchange import Flow, Json
from .replies import final


class JobHandle:
    """A job's id, and its final view once a call has returned it."""

    def __init__(self, endpoint_id: str, job_id: str, calls: Calls) -> None:
        self.endpoint_id = require_id(endpoint_id, "endpoint_id")
        self.job_id = require_id(job_id, "job_id")
        self._calls = calls
        self._last: View | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(endpoint_id={self.endpoint_id!r}, job_id={self.job_id!r})"

    @property
    def job_status(self) -> str | None:
        """The final status if a call on this handle has returned it, else None."""
        return None if self._last is None else str(self._last["status"])

    @property
    def job_output(self) -> Json:
        """The output if a call on this handle has returned the final view, else None."""
        return None if self._last is None else self._last.get("output")

    def _view(self) -> Flow[View]:
        if self._last is not None:
            return self._last
        view = yield from self._calls.view(self.endpoint_id, self.job_id)
        return self._remember(view)

    def _remember(self, view: View) -> View:
        if final(view):
            self._last = view
        return view

    def _status(self) -> Flow[str]:
        view = yield from self._view()
        return str(view["status"])

    def _output(self, timeout: float | None) -> Flow[Json]:
        if timeout == 0 or self._last is not None:
            return output_of((yield from self._view()))
        view = yield from self._calls.wait(self.endpoint_id, self.job_id, limit(timeout))
        return output_of(self._remember(view))

    def _chunks(self, early: int) -> Flow[tuple[list[Json], int]]:
        return self._calls.chunks(self.endpoint_id, self.job_id, early)

    def _cancel(self, timeout: float) -> Flow[View]:
        return self._calls.cancel(self.endpoint_id, self.job_id, timeout)

    def _retry(self, timeout: float) -> Flow[View]:
        view = yield from self._calls.retry(self.endpoint_id, self.job_id, timeout)
        self._last = None
        return view
