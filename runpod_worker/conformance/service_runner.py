"""Runs the checks of a service, one after the other on one endpoint that has no other workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import aiohttp

from .check import Check, CheckResult, RequirementFailed
from .service_suite import KEYS, LEASE, SLOW
from .service_under_test import ServiceUnderTest, connect

CHECK_TIMEOUT_S = 120.0


def select(
    checks: Sequence[Check[ServiceUnderTest]], *, key: bool, lease: bool, slow: bool
) -> list[Check[ServiceUnderTest]]:
    """The checks that can run with the given facts about the service."""
    left_out = {group for group, is_known in ((KEYS, key), (LEASE, lease), (SLOW, slow)) if not is_known}
    return [check for check in checks if check.group not in left_out]


async def run_checks(
    url: str, checks: Sequence[Check[ServiceUnderTest]], *, key: str | None = None, lease_s: float | None = None
) -> AsyncIterator[CheckResult]:
    """Run the checks in order and yield each result at once."""
    async with connect(url, key, lease_s) as service:
        for check in checks:
            yield await _run_check(service, check)


async def _run_check(service: ServiceUnderTest, check: Check[ServiceUnderTest]) -> CheckResult:
    begin, failure = monotonic(), ""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await service.send("POST", "purge-queue")
            await check.run(service)
    except RequirementFailed as exc:
        failure = str(exc)
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        failure = f"{type(exc).__name__}: {exc}".removesuffix(": ")
    except (KeyError, TypeError, AttributeError, IndexError) as exc:
        failure = f"the reply does not have the promised shape: {type(exc).__name__}: {exc}"
    return CheckResult(check.name, check.clause, failure, monotonic() - begin)
