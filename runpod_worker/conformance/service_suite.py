"""What the checks of a service share: their list, their groups, and what they do again and again."""

from __future__ import annotations

from typing import Any

from .check import Checks, need, short
from .service_under_test import Ends

check: Checks[Ends] = Checks()

KEYS, LEASE, SLOW = "keys", "lease", "slow"
"""Groups that run on request: with a key, with the service's lease, with time."""


async def completed(ends: Ends, output: Any) -> str:
    """The id of a job that is COMPLETED with this output."""
    pod, job = await ends.started({"n": 1})
    await pod.done(job, {"output": output})
    await ends.until(job, "COMPLETED")
    return str(job["id"])


def integers(view: dict[str, Any], *names: str) -> None:
    """Raise Unmet unless all these are whole numbers."""
    for name in names:
        value = view.get(name)
        need(isinstance(value, int) and not isinstance(value, bool), f"{name}: expected an integer, got {short(value)}")
