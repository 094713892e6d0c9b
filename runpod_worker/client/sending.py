"""Sends a request until it succeeds or cannot. This file has every rule about repeating requests.

1. A request that was not sent completely (`NotSent`), or was refused with 408, 429 or 503, had no effect. Repeat it.
2. A request that may have arrived (`NoReply`, or another 5xx) is repeated only if it is `repeatable`. Reads and cancel
   are. Submit, retry and purge are not, because a second request could do the work twice.
3. Wait between tries for a growing, jittered pause, or for `Retry-After` if that is longer.
4. Stop at `until`, or `MAX_RETRY_S` after the first failure, and raise the last failure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from runpod_worker.core.errors import LinkDown, RunpodWorkerError, WaitTimedOut
from runpod_worker.log import log

from .exchange import Flow, NoReply, NotSent, Pause, Reply, Request
from .replies import NOT_DONE, refusal, retry_after

MAX_RETRY_S = 30.0
"""Raise when requests have failed for this long. A service restarts faster, and a wrong URL is reported soon enough."""

_NOT_REPEATED = "; the service may have acted on it, so it was not sent again"


@dataclass(frozen=True, slots=True)
class _Failure:
    """A failed try: the error to raise, whether to try again, and the shortest pause that the service wants."""

    error: RunpodWorkerError
    again: bool
    min_pause_s: float = 0.0


class Sender:
    """Sends a request, and repeats it if that is safe and may help.

    Args:
        now: a monotonic clock, in seconds.
        delay: seconds to wait after this many failures in a row.
    """

    def __init__(self, now: Callable[[], float], delay: Callable[[int], float]) -> None:
        self.now = now
        self.delay = delay

    def send(self, request: Request, until: float, *, repeatable: bool, job_id: str | None = None) -> Flow[Reply]:
        """Return the first successful reply.

        Raises:
            LinkDown: the service could not be reached, or the connection broke.
            WaitTimedOut: the service did not answer in time.
            ServiceRefusal: the service answered with an error.
        """
        failures, give_up_at = 0, until
        while True:
            left = max(0.001, until - self.now())
            result = yield from self._try(replace(request, timeout_s=min(request.timeout_s, left)), repeatable, job_id)
            if isinstance(result, Reply):
                return result
            failures += 1
            if failures == 1:
                give_up_at = min(until, self.now() + MAX_RETRY_S)
            yield from self._pause(result, failures, give_up_at, request)

    def _pause(self, failure: _Failure, failures: int, give_up_at: float, request: Request) -> Flow[None]:
        pause_s = max(failure.min_pause_s, self.delay(failures))
        if not failure.again or self.now() + pause_s >= give_up_at:
            raise failure.error
        log.info("request.retried", extra={"path": request.path, "pause_s": pause_s, "error": str(failure.error)})
        yield from pause(pause_s)

    def _try(self, request: Request, repeatable: bool, job_id: str | None) -> Flow[Reply | _Failure]:
        where = f"{request.method} {request.path.partition('?')[0]}"
        note = "" if repeatable else _NOT_REPEATED
        try:
            reply = yield request
        except NotSent as cause:
            return _Failure(_with_cause(LinkDown(f"{where}: cannot reach the job service: {cause}"), cause), again=True)
        except NoReply as cause:
            kind = WaitTimedOut if cause.timed_out else LinkDown
            return _Failure(_with_cause(kind(f"{where}: {cause}{note}"), cause), again=repeatable)
        assert reply is not None  # noqa: S101 - every request is sent a reply
        if 200 <= reply.status < 300:
            return reply
        error = refusal(reply, where, job_id)
        if reply.status in NOT_DONE:
            return _Failure(error, again=True, min_pause_s=retry_after(reply))
        if reply.status >= 500:
            error.args = (f"{error}{note}",)
        return _Failure(error, again=repeatable and reply.status >= 500, min_pause_s=retry_after(reply))


def pause(seconds: float) -> Flow[None]:
    """Wait."""
    yield Pause(seconds)


def _with_cause(error: RunpodWorkerError, cause: Exception) -> RunpodWorkerError:
    error.__cause__ = cause
    return error
