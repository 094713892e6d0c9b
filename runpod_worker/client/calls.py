"""The client's calls without I/O: which requests to send, and how long to wait for a job.

The service does the waiting: `/runsync`, `/status-sync` and `/stream` are long polls. If a service answers early, or
has no `/status-sync`, the client repeats the request after growing pauses.
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
from .replies import decode_json, final, job_error, parse_view
from .sending import Sender, pause
from .submission import as_request, encode_json

MAX_POLL_S = 90.0
"""Longest long poll; a longer wait takes several. RunPod's edge cuts silent connections after 100 s (protocol A.1)."""

CALL_TIMEOUT_S = 60.0
"""Default timeout of a call, long enough for 20 MB over a slow connection."""

View = dict[str, Json]


BACKOFF = Backoff(base_s=0.2, cap_s=5.0)


def growing_pause(failures: int) -> float:
    """Seconds to wait after this many failures in a row."""
    return BACKOFF.delay(failures - 1, random.random)


class Calls:
    """Every call of the client, as steps that `blocking` or `aio` performs."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, delay: Callable[[int], float] = growing_pause
    ) -> None:
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
        body = None if data is None else encode_json(data)
        request = Request(method=method, path=path, body=body, timeout_s=timeout)
        until = self.now() + timeout
        reply = yield from self._sender.send(request, until, repeatable=repeatable, job_id=job_id)
        return decode_json(reply, f"{method} {path}")

    def submit(self, endpoint_id: str, request_input: Json, timeout: float = CALL_TIMEOUT_S) -> Flow[str]:
        """Submit a job and return its id."""
        path = endpoint_path(endpoint_id, "run")
        view = yield from self.call("POST", path, as_request(request_input), timeout)
        return _job_id(view, path)

    def run_sync(self, endpoint_id: str, request_input: Json, timeout: float | None) -> Flow[Json]:
        """Submit a job, wait for its end and return its output."""
        deadline = self.now() + limit(timeout)
        poll_s = _poll_s(limit(timeout))
        path = endpoint_path(endpoint_id, "runsync", poll_s)
        body = encode_json(as_request(request_input))
        request = Request(method="POST", path=path, body=body, timeout_s=poll_s + CALL_TIMEOUT_S)
        reply = yield from self._sender.send(request, deadline, repeatable=False)
        view = parse_view(reply, path)
        if not final(view):
            view = yield from self.wait(endpoint_id, _job_id(view, path), deadline - self.now())
        return output_of(view)

    def view(self, endpoint_id: str, job_id: str, timeout: float = CALL_TIMEOUT_S) -> Flow[View]:
        """Return the view of a job."""
        path = job_path(endpoint_id, "status", job_id)
        request = Request(method="GET", path=path, timeout_s=timeout)
        reply = yield from self._sender.send(request, self.now() + timeout, repeatable=True, job_id=job_id)
        return parse_view(reply, path)

    def wait(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Wait for the end of a job and return its view.

        Raises:
            WaitTimedOut: the job has not ended within `timeout` seconds; carries the last view.
        """
        deadline = self.now() + timeout
        view: View = {"id": job_id}
        early = 0
        while True:
            sent_at = self.now()
            poll_s = _poll_s(deadline - sent_at)
            try:
                view = yield from self._poll_view(endpoint_id, job_id, poll_s, deadline)
            except WaitTimedOut as error:
                if self.now() < deadline:
                    raise
                raise _still_running(view, timeout) from error
            if final(view):
                return view
            if self.now() >= deadline:
                raise _still_running(view, timeout)
            early = self._count_early(early, sent_at, poll_s)
            if early:
                yield from pause(max(0.0, min(self.delay(early), deadline - self.now())))

    def _poll_view(self, endpoint_id: str, job_id: str, poll_s: float, deadline: float) -> Flow[View]:
        if not self._has_status_sync:
            return (yield from self.view(endpoint_id, job_id, _until(deadline - self.now())))
        path = job_path(endpoint_id, "status-sync", job_id, poll_s)
        request = Request(method="GET", path=path, timeout_s=poll_s + CALL_TIMEOUT_S)
        try:
            reply = yield from self._sender.send(request, deadline, repeatable=True, job_id=job_id)
        except ServiceRefusal as error:
            if error.status not in (404, 405, 501):
                raise
            # Either the job or the route is unknown. /status, which every service has, shows which.
            view = yield from self.view(endpoint_id, job_id, _until(deadline - self.now()))
            self._has_status_sync = False
            return view
        return parse_view(reply, path)

    def _count_early(self, early: int, sent_at: float, poll_s: float) -> int:
        """The number of early replies in a row. It sets the pause before the next request."""
        return early + 1 if self.now() - sent_at < poll_s / 2 else 0

    def chunks(self, endpoint_id: str, job_id: str, early: int) -> Flow[tuple[list[Json], int]]:
        """Return the next chunks, and the value of `early` for the next call; no chunks: the job has completed.

        Raises:
            JobError: the job did not complete, and no chunks are left.
        """
        path = job_path(endpoint_id, "stream", job_id, MAX_POLL_S)
        request = Request(method="GET", path=path, timeout_s=MAX_POLL_S + CALL_TIMEOUT_S)
        while True:
            sent_at = self.now()
            reply = yield from self._sender.send(request, math.inf, repeatable=True, job_id=job_id)
            view = parse_view(reply, path)
            if view.get("stream"):
                return [_output(piece, path) for piece in view["stream"]], 0
            if final(view):
                yield from self._check_completed(endpoint_id, job_id, view)
                return [], 0
            early = self._count_early(early, sent_at, MAX_POLL_S)
            if early:
                yield from pause(self.delay(early))

    def _check_completed(self, endpoint_id: str, job_id: str, view: View) -> Flow[None]:
        if job_error(view) is None:
            return
        try:  # the view of a stream may lack the error
            view = yield from self.view(endpoint_id, job_id)
        except ServiceRefusal as error:
            raise job_error({"id": job_id} | view) or error from error
        output_of(view)

    def cancel(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Cancel a job, and return the reply."""
        path = job_path(endpoint_id, "cancel", job_id)
        view: View = yield from self.call("POST", path, None, timeout, repeatable=True, job_id=job_id)
        return view

    def retry(self, endpoint_id: str, job_id: str, timeout: float) -> Flow[View]:
        """Run a job again that failed or timed out, and return the reply."""
        path = job_path(endpoint_id, "retry", job_id)
        view: View = yield from self.call("POST", path, None, timeout, job_id=job_id)
        return view

    def health(self, endpoint_id: str, timeout: float) -> Flow[View]:
        """Return the numbers of jobs and workers."""
        view: View = yield from self.call("GET", endpoint_path(endpoint_id, "health"), None, timeout, repeatable=True)
        return view

    def purge_queue(self, endpoint_id: str, timeout: float) -> Flow[View]:
        """Cancel the jobs that are IN_QUEUE, and return the reply."""
        view: View = yield from self.call("POST", endpoint_path(endpoint_id, "purge-queue"), None, timeout)
        return view


def limit(timeout: float | None) -> float:
    """The timeout in seconds; None is infinite."""
    return math.inf if timeout is None else timeout


def output_of(view: View) -> Json:
    """Return the output in a view.

    Raises:
        JobError: the job did not complete.
    """
    error = job_error(view)
    if error is not None:
        raise error
    return view.get("output")


def endpoint_path(endpoint_id: str, verb: str, poll_s: float | None = None) -> str:
    """The path of an endpoint's route, below the base URL."""
    return f"{quote(endpoint_id, safe='')}/{verb}{_wait(poll_s)}"


def job_path(endpoint_id: str, verb: str, job_id: str, poll_s: float | None = None) -> str:
    """The path of a job's route, below the base URL."""
    return f"{endpoint_path(endpoint_id, verb)}/{quote(job_id, safe='')}{_wait(poll_s)}"


def _wait(poll_s: float | None) -> str:
    return "" if poll_s is None else f"?wait={round(poll_s * 1000)}"


def _poll_s(left_s: float) -> float:
    """The duration of the next long poll: a second less than the time left, so that the reply arrives in time.

    The service accepts no less than a second (protocol A.2).
    """
    return min(max(left_s - 1.0, 1.0), MAX_POLL_S)


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
    return WaitTimedOut(f"job {view['id']} has not ended within {timeout:g} s; it continues", view)
