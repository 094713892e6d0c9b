"""The list, the groups and the common steps of the checks of a service."""

from __future__ import annotations

from typing import Any

from .check import Checks, require, truncate
from .service_under_test import ServiceUnderTest

check: Checks[ServiceUnderTest] = Checks()

KEYS, LEASE, SLOW = "keys", "lease", "slow"
"""Groups that run on request: given an API key, given the service's lease, given time."""


async def complete_job(service: ServiceUnderTest, output: Any) -> str:
    """Run a job to COMPLETED with this output and return its id."""
    worker, job = await service.start_job({"n": 1})
    await worker.finish(job, {"output": output})
    await service.until_status(job, "COMPLETED")
    return str(job["id"])


def require_integers(view: dict[str, Any], *names: str) -> None:
    """Raise RequirementFailed unless all these fields are whole numbers."""
    for name in names:
        value = view.get(name)
        require(
            isinstance(value, int) and not isinstance(value, bool),
            f"{name}: expected an integer, got {truncate(value)}",
        )
