"""The small values that the dispatcher, the link and the agent exchange."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a take returns: one attempt of one job. `body` is the job's JSON, untouched.

    `attempt` and `timeout_s` (what is left of executionTimeout) are None where the service does not send them.
    `error`: the job cannot run; report it as failed.
    """

    id: str
    body: bytes
    attempt: int | None = None
    timeout_s: float | None = None
    error: str | None = None


class AttemptRef(NamedTuple):
    """Names the attempt that a report is about. `number` is None where attempts are not counted.

    `take_id` names the take that returned it: a released job may come again with the same number.
    """

    job_id: str
    number: int | None
    take_id: str = ""


class TakeRequest(NamedTuple):
    """A request for at most `max_jobs` jobs. The service takes back by `id` what a lost reply carried."""

    max_jobs: int
    id: str
