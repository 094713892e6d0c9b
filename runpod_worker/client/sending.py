"""One request, sent until it is answered or hopeless. Every rule about sending again lives in this file.

1. A request that never left as a whole (`NotSent`), or was refused with 408, 429 or 503, did nothing: it is sent again.
2. A request that may have arrived (`NoReply`, or another 5xx) is sent again only if it is `repeatable`: reads and
   cancel are, submitting, retrying and purging are not, because a second one could do the work twice.
3. Between two tries passes a growing, jittered pause, or what `Retry-After` asks if that is longer.
4. Nothing goes on past `until`, nor longer than `PATIENCE_S` after the first failure. Then the last failure is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from runpod_worker.core.errors import LinkDown, RunpodWorkerError, WaitTimedOut
from runpod_worker.log import log

from .exchange import Flow, NoReply, NotSent, Pause, Reply, Request
from .replies import NOT_DONE, refusal, retry_after

PATIENCE_S = 30.0
"""How long an unreachable or refusing service is tried: enough for a restart, short enough for a wrong URL."""

_PERHAPS = "; the service may have acted on it, so it was not sent again"


@dataclass(frozen=True, slots=True)
class _Failure:
    """A try that did not succeed: what to raise, whether another may help, how long the service asks to wait."""

    error: RunpodWorkerError
    again: bool
    least_s: float = 0.0


class Sender:
    """Sends one request at a time, again when that is safe and may help.

    Args:
        now: a monotonic clock, in seconds.
        delay: seconds to pause after the n-th failure in a row, counted from 1.
    """

    def __init__(self, now: Callable[[], float], delay: Callable[[int], float]) -> None:
        self.now = now
        self.delay = delay

    def send(self, request: Request, until: float, *, repeatable: bool, job_id: str | None = None) -> Flow[Reply]:
        """Return the first reply that is a success.

        Raises:
            LinkDown: the service could not be reached, or broke off.
            WaitTimedOut: it did not answer in time.
            ServiceRefusal: it answered with an error.
        """
        failures, give_up_at = 0, until
        while True:
            left = max(0.001, until - self.now())
            result = yield from self._try(replace(request, timeout_s=min(request.timeout_s, left)), repeatable, job_id)
            if isinstance(result, Reply):
                return result
            failures += 1
            if failures == 1:
                give_up_at = min(until, self.now() + PATIENCE_S)
            yield from self._pause(result, failures, give_up_at, request)

    def _pause(self, failure: _Failure, failures: int, give_up_at: float, request: Request) -> Flow[None]:
        pause_s = max(failure.least_s, self.delay(failures))
        if not failure.again or self.now() + pause_s >= give_up_at:
            raise failure.error
        log.info("client.retry", extra={"path": request.path, "pause_s": pause_s, "error": str(failure.error)})
        yield from pause(pause_s)

    def _try(self, request: Request, repeatable: bool, job_id: str | None) -> Flow[Reply | _Failure]:
        where = f"{request.method} {request.path.partition('?')[0]}"
        perhaps = "" if repeatable else _PERHAPS
        try:
            reply = yield request
        except NotSent as cause:
            return _Failure(_because(LinkDown(f"{where}: cannot reach the job service: {cause}"), cause), again=True)
        except NoReply as cause:
            kind = WaitTimedOut if cause.timed_out else LinkDown
            return _Failure(_because(kind(f"{where}: {cause}{perhaps}"), cause), again=repeatable)
        assert reply is not None  # noqa: S101 - a face answers each request with a reply
        if 200 <= reply.status < 300:
            return reply
        refused = refusal(reply, where, job_id)
        if reply.status in NOT_DONE:
            return _Failure(refused, again=True, least_s=retry_after(reply))
        if reply.status >= 500:
            refused.args = (f"{refused}{perhaps}",)
        return _Failure(refused, again=repeatable and reply.status >= 500, least_s=retry_after(reply))


def pause(seconds: float) -> Flow[None]:
    """Let time pass."""
    yield Pause(seconds)


def _because(error: RunpodWorkerError, cause: Exception) -> RunpodWorkerError:
    error.__cause__ = cause
    return error
