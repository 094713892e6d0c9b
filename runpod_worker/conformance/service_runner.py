"""Runs the checks of a service, one after the other on one endpoint that has no workers of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import monotonic

import aiohttp

from .check import Check, Unmet, Verdict
from .service_suite import KEYS, LEASE, SLOW
from .service_under_test import Ends, ends

CHECK_S = 120.0


def chosen(checks: Sequence[Check[Ends]], *, key: bool, lease: bool, slow: bool) -> list[Check[Ends]]:
    """The checks that can run with what is known of the service."""
    left_out = {name for name, wanted in ((KEYS, key), (LEASE, lease), (SLOW, slow)) if not wanted}
    return [check for check in checks if check.group not in left_out]


async def verdicts(
    url: str, checks: Sequence[Check[Ends]], *, key: str | None = None, lease_s: float | None = None
) -> AsyncIterator[Verdict]:
    """The checks' verdicts, as they come."""
    async with ends(url, key, lease_s) as both:
        for check in checks:
            yield await _verdict(both, check)


async def _verdict(both: Ends, check: Check[Ends]) -> Verdict:
    begin, why = monotonic(), ""
    try:
        async with asyncio.timeout(CHECK_S):
            await both.send("POST", "purge-queue")
            await check.run(both)
    except Unmet as unmet:
        why = str(unmet)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        why = f"the reply is not shaped as promised: {type(error).__name__}: {error}"
    return Verdict(name=check.name, clause=check.clause, why=why, seconds=monotonic() - begin)
