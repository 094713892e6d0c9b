"""The client's calls, written once and without I/O: what to ask the job service, and how long to wait for a job.

Waiting is the service's work: it holds `/runsync`, `/status-sync` and `/stream` until there is something to say. A
service that does not hold (or has no `/status-sync`) is asked again after a growing pause.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from urllib.parse import quote

from runpod_worker.core.backoff import Backoff
from runpod_worker.core.errors import LinkDown, ServiceRefusal, WaitTimedOut

from .exchange import Flow, Json, Request
from .replies import decoded, final, job_error, view_in
from .sending import Sender, pause
from .submission import encoded, whole_request

HOLD_S = 90.0
"""Longest wait asked of the service: the edge in front of RunPod's cuts what is silent for 100 s (protocol A.1)."""

CALL_TIMEOUT_S = 60.0
"""For a call that names no time-out: room for 20 MB over a slow line."""

View = dict[str, Json]


BACKOFF = Backoff(base_s=0.2, cap_s=5.0)


def growing(failures: int) -> float:
    """Seconds to pause after the n-th failure in a row, counted from 1."""
    return BACKOFF.delay(failures - 1, random.random)


class Calls:
    """Every call of the client, as steps for a face to carry out."""

    def __init__(self, now: Callable[[], float] = time.monotonic, delay: Callable[[int], float] = growing) -> None:
        self.now = now
        self.delay = delay
        self._sender = Sender(now, delay)
        self._has_status_sync = True

    def call(
        self,
        method: str,
        path: str,
        data: Json = None,
        timeout: float = CALL_TIMEOUT_S,
        *,
        repeatable: bool = False,
        job_id: str | None = None,
    ) -> Flow[Json]:
        """Return the JSON of the reply; `path` is below the base URL."""
        body = None if data is None else encoded(data)
        request = Request(method=method, path=path, body=body, timeout_s=timeout)
        until = self.now() + timeout
        reply = yield from self._sender.send(request, until, repeatable=repeatable, job_id=job_id)
        return decoded(reply, f"{method} {path}")

    def submit(self, endpoint_id: str, request_input: Json) -> Flow[str]:
        """Send a job and return its id."""
        path = endpoint_path(endpoint_id, "run")
        view = yield from self.call("POST", path, whole_request(request_input))
        return _job_id(view, path)

    def run_sync(self, endpoint_id: str, request_input: Json, timeout: float | None) -> Flow[Json]:
        """Send a job, wait for it and return its output."""
        deadline = self.now() + limit(timeout)
        hold_s = _hold(limit(timeout))
        path = endpoint_path(endpoint_id, "runsync", hold_s)
        body = encoded(whole_request(request_input))
        request = Request(method="POST", path=path, body=body, timeout_s=hold_s + CALL_TIMEOUT_S)
        reply = yield from self._sender.send(request, deadline, repeatable=False)
        view = view_in(reply, path)
        if not final(view):
            view = yield from self.wait(endpoint_id, _job_id(view, path), deadline - self.now())
        return completed(view)

    def view(self, endpoint_id: str, job_id: str, timeout: float = CALL_TIMEOUT_S) -> Flow[View]:
        """Return the service's view of a job as it is now."""
        path = job_path(endpoint_id, "status", job_id)
        request = Request(method="GET", path=path, timeout_s=timeout)
        reply = yield from self._sender.send(request, self.now() + timeout, repeatable=True, job_id=job_id)
        return view_in(reply, path)

    def wait(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Return the view of the job once it has ended.

        Raises:
            WaitTimedOut: it has not ended within `timeout` seconds; carries the last view.
        """
        deadline = self.now() + timeout
        view: View = {"id": job_id}
        early = 0
        while True:
            asked = self.now()
            hold_s = _hold(deadline - asked)
            try:
                view = yield from self._held_view(endpoint_id, job_id, hold_s, deadline)
            except WaitTimedOut as error:
                if self.now() < deadline:
                    raise
                raise _still_running(view, timeout) from error
            if final(view):
                return view
            if self.now() >= deadline:
                raise _still_running(view, timeout)
            early = self._early(early, asked, hold_s)
            if early:
                yield from pause(max(0.0, min(self.delay(early), deadline - self.now())))

    def _held_view(self, endpoint_id: str, job_id: str, hold_s: float, deadline: float) -> Flow[View]:
        if not self._has_status_sync:
            return (yield from self.view(endpoint_id, job_id, _until(deadline - self.now())))
        path = job_path(endpoint_id, "status-sync", job_id, hold_s)
        request = Request(method="GET", path=path, timeout_s=hold_s + CALL_TIMEOUT_S)
        try:
            reply = yield from self._sender.send(request, deadline, repeatable=True, job_id=job_id)
        except ServiceRefusal as error:
            if error.status not in (404, 405, 501):
                raise
            # No such job, or no such route? The route that every service has tells.
            view = yield from self.view(endpoint_id, job_id, _until(deadline - self.now()))
            self._has_status_sync = False
            return view
        return view_in(reply, path)

    def _early(self, early: int, asked: float, hold_s: float) -> int:
        """How many replies in a row came without having been held; each makes the pause before the next longer."""
        return early + 1 if self.now() - asked < hold_s / 2 else 0

    def chunks(self, endpoint_id: str, job_id: str, early: int) -> Flow[tuple[list[Json], int]]:
        """Return the next chunks, and a number to pass in again; no chunks means that the job has completed.

        Raises:
            JobError: the job ended without completing, and no chunks are left.
        """
        path = job_path(endpoint_id, "stream", job_id, HOLD_S)
        request = Request(method="GET", path=path, timeout_s=HOLD_S + CALL_TIMEOUT_S)
        while True:
            asked = self.now()
            reply = yield from self._sender.send(request, math.inf, repeatable=True, job_id=job_id)
            view = view_in(reply, path)
            if view.get("stream"):
                return [_output(piece, path) for piece in view["stream"]], 0
            if final(view):
                yield from self._check_completed(endpoint_id, job_id, view)
                return [], 0
            early = self._early(early, asked, HOLD_S)
            if early:
                yield from pause(self.delay(early))

    def _check_completed(self, endpoint_id: str, job_id: str, view: View) -> Flow[None]:
        if job_error(view) is None:
            return
        try:  # a stream's view need not carry the error
            view = yield from self.view(endpoint_id, job_id)
        except ServiceRefusal as error:
            raise job_error({"id": job_id} | view) or error from error
        completed(view)

    def cancel(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Ask that the job be given up, and return the reply."""
        path = job_path(endpoint_id, "cancel", job_id)
        view: View = yield from self.call("POST", path, None, timeout, repeatable=True, job_id=job_id)
        return view

    def retry(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Ask for one more run of a job that failed or timed out, and return the reply."""
        path = job_path(endpoint_id, "retry", job_id)
        view: View = yield from self.call("POST", path, None, timeout, job_id=job_id)
        return view

    def health(self, endpoint_id: str, timeout: float) -> Flow[View]:
        """Return the numbers of jobs and workers."""
        view: View = yield from self.call("GET", endpoint_path(endpoint_id, "health"), None, timeout, repeatable=True)
        return view

    def purge_queue(self, endpoint_id: str, timeout: float) -> Flow[View]:
        """Drop the jobs that are still queued, and return the reply."""
        view: View = yield from self.call("POST", endpoint_path(endpoint_id, "purge-queue"), None, timeout)
        return view


def limit(timeout: float | None) -> float:
    """The time-out in seconds; None has no end."""
    return math.inf if timeout is None else timeout


def completed(view: View) -> Json:
    """Return the output in a view.

    Raises:
        JobError: the job ended without completing.
    """
    error = job_error(view)
    if error is not None:
        raise error
    return view.get("output")


def endpoint_path(endpoint_id: str, verb: str, hold_s: float | None = None) -> str:
    """The path of an endpoint's route, below the base URL."""
    return f"{quote(endpoint_id, safe='')}/{verb}{_wait(hold_s)}"


def job_path(endpoint_id: str, verb: str, job_id: str, hold_s: float | None = None) -> str:
    """The path of a job's route, below the base URL."""
    return f"{endpoint_path(endpoint_id, verb)}/{quote(job_id, safe='')}{_wait(hold_s)}"


def _wait(hold_s: float | None) -> str:
    return "" if hold_s is None else f"?wait={round(hold_s * 1000)}"


def _hold(left_s: float) -> float:
    """How long the service is asked to hold: a second less than there is, so that its reply still counts.

    It takes no less than a second (protocol A.2).
    """
    return min(max(left_s - 1.0, 1.0), HOLD_S)


def _until(left_s: float) -> float:
    return min(max(left_s, 0.0), CALL_TIMEOUT_S)


def _job_id(view: Json, where: str) -> str:
    if not isinstance(view, dict) or not isinstance(view.get("id"), str):
        raise LinkDown(f"{where}: expected a job with an id from the job service, got {view!r:.200}")
    return str(view["id"])


def _output(piece: Json, where: str) -> Json:
    if not isinstance(piece, dict) or "output" not in piece:
        raise LinkDown(f"{where}: expected chunks with an output from the job service, got {piece!r:.200}")
    return piece["output"]


def _still_running(view: View, timeout: float) -> WaitTimedOut:
    return WaitTimedOut(f"job {view['id']} has not ended within {timeout:g} s; it goes on", view)
