"""The port from a worker to a job service: what is asked, what is answered, how it can fail.

`HttpLink` (link_http.py) speaks RunPod's protocol, and with our own service the extensions of docs/extensions.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from runpod_worker.log import log


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a take hands over: one attempt of one job. `body` is the job's JSON, untouched.

    `attempt`, `timeout_s` (what is left of executionTimeout) and `lease_s` are None where nothing was agreed.
    `error`: the job cannot be run and is to be reported as failed.
    """

    id: str
    body: bytes
    attempt: int | None = None
    timeout_s: float | None = None
    lease_s: float | None = None
    error: str | None = None


class Attempt(NamedTuple):
    """Whom a report is about. The number is None where attempts are not counted.

    `take` names the hand-over that brought it: a job that was returned may come again with the same number.
    """

    job_id: str
    number: int | None
    take: str = ""


class Ask(NamedTuple):
    """A wish for at most `most` jobs. `token` names the hand-over, so that it can be given back unseen."""

    most: int
    token: str


class Answer(NamedTuple):
    """What the service says to a report. `stale`: this worker does not hold the attempt any more."""

    stale: bool = False
    jobs: tuple[Assignment, ...] = ()


class Link(Protocol):
    """The job service as a worker sees it.

    Every call may raise LinkDown (no answer, 5xx: try again later), LinkBusy (429, the same) or LinkRefused (4xx: do
    not). A call may be cancelled at any time. Nothing is retried in here.
    """

    @property
    def extensions(self) -> frozenset[str]:
        """The names of docs/extensions.md that the service offered in the answer to the latest beat."""

    @property
    def files_url(self) -> str | None:
        """Where files can be stored, None when that was not agreed."""

    async def take(self, ask: Ask, *, busy: bool) -> Sequence[Assignment]:
        """Wait for jobs as long as the service holds the request (at most 90 s); empty: there are none now."""

    async def stops(self) -> Sequence[Attempt]:
        """Wait for the attempts to stop; empty: none now. A number that is None means whichever is held.

        Raises:
            LinkRefused: also when the service has no such route.
        """

    async def beat(self, job_ids: Collection[str]) -> None:
        """This worker is alive and holds these jobs."""

    async def unfit(self, check: str, reason: str) -> None:
        """This worker failed a fitness check, and will not take jobs."""

    async def finish(self, attempt: Attempt, body: bytes, *, is_stream: bool = False, ask: Ask | None = None) -> Answer:
        """Report the outcome (a JSON object). `ask`: the answer may bring the next jobs; where `take` is agreed."""

    async def progress(self, attempt: Attempt, value: bytes, number: int) -> Answer:
        """Report the latest progress value (JSON), the `number`-th of this attempt."""

    async def chunks(self, attempt: Attempt, index: int, outputs: Sequence[bytes]) -> Answer:
        """Report consecutive chunks (JSON each), the first with this index. Several only where `chunks` is agreed."""

    async def give_back(self, tokens: Sequence[str], attempts: Sequence[Attempt]) -> None:
        """Return what was handed over under these tokens, and these attempts. Only where `return` is agreed."""

    def target(self, job_id: str, *, is_stream: bool) -> str:
        """Where the outcome of this job goes."""

    def file_target(self, job_id: str, token: str, name: str) -> str:
        """Where one output file goes, and is read. Only where `files` is agreed."""

    async def store(self, target: str, content_type: str, body: bytes) -> None:
        """Keep one output file."""

    async def replay(self, target: str, attempt: Attempt, body: bytes) -> Answer:
        """Report an outcome that an earlier process could not."""

    async def close(self) -> None:
        """Close the connections."""


class _Plain(msgspec.Struct):
    id: str | int
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Agreed(msgspec.Struct):
    id: str
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    attempt: int | None = None
    timeoutMs: float | None = None  # noqa: N815 - the wire's name
    leaseMs: float | None = None  # noqa: N815


LARGE = 64 * 1024
"""In a job of more than this, what comes before its input is looked at first."""

_INPUT = b'"input":'

_plain = msgspec.json.Decoder(_Plain)
_agreed = msgspec.json.Decoder(_Agreed)
_array = msgspec.json.Decoder(list[msgspec.Raw])


_Head = TypeVar("_Head", _Plain, _Agreed)


def assignments(body: bytes, *, agreed: bool) -> list[Assignment]:
    """Read a take's answer: a job object or an array of them, looked into no further than needed.

    What is not a job is logged and left out: nothing can be reported without an id.
    """
    start = body.lstrip()[:1]
    if not start:
        return []
    if start != b"[":
        return _readable([body], agreed)
    try:
        return _readable([bytes(raw) for raw in _array.decode(body)], agreed)
    except msgspec.MsgspecError as error:
        log.error("take.garbled", extra={"error": str(error)})
        return []


def _readable(bodies: Sequence[bytes], agreed: bool) -> list[Assignment]:
    found = []
    for body in bodies:
        try:
            found.append(_assignment(body, agreed))
        except msgspec.MsgspecError as error:
            log.error("take.garbled", extra={"error": f"not a job: {error}"})
    return found


def _assignment(body: bytes, agreed: bool) -> Assignment:
    if not agreed:
        plain = _before_input(body, _plain) or _plain.decode(body)
        return Assignment(id=str(plain.id), body=body, error=_missing(plain.input))
    head = _before_input(body, _agreed)
    if head is None or None in (head.attempt, head.timeoutMs, head.leaseMs):
        head = _agreed.decode(body)
    return Assignment(
        id=head.id,
        body=body,
        attempt=head.attempt,
        timeout_s=None if head.timeoutMs is None else head.timeoutMs / 1000,
        lease_s=None if head.leaseMs is None else head.leaseMs / 1000,
        error=_missing(head.input),
    )


def _before_input(body: bytes, decoder: msgspec.json.Decoder[_Head]) -> _Head | None:
    """A large job's head, where all of it comes before the input; the executor reads the rest, and need not wait."""
    if len(body) <= LARGE:
        return None
    end = body.find(_INPUT, 0, LARGE)
    try:
        return decoder.decode(body[:end] + _INPUT + b"null}") if end > 0 else None
    except msgspec.MsgspecError:  # it was another object's key, or the id comes later
        return None


def _missing(value: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return "the job has no `input`: expected a key `input` with any JSON value" if value is msgspec.UNSET else None
