"""Touches a file while the agent's loop runs. A container's health check reads the file's age."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from runpod_worker.log import log

TOUCH_INTERVAL_S = 5.0


async def touch_health_file(path: Path | None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Touch the file until cancelled. Return if there is no file, or after an error, which does not end the worker."""
    while path is not None:
        try:
            await asyncio.to_thread(path.touch, 0o644)
        except OSError as error:
            log.warning("health.failed", extra={"file": str(path), "error": str(error)})
            return
        await sleep(TOUCH_INTERVAL_S)
