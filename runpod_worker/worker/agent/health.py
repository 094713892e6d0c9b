"""A file that is touched while the agent's loop runs. A container's health check looks at its age."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from runpod_worker.log import log

TOUCH_EVERY_S = 5.0


async def signs_of_life(path: Path | None, rest: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Touch this file for ever; nothing to do without one. A file that cannot be written ends only the signs."""
    while path is not None:
        try:
            await asyncio.to_thread(path.touch, 0o644)
        except OSError as error:
            log.warning("health.unwritable", extra={"file": str(path), "error": str(error)})
            return
        await rest(TOUCH_EVERY_S)
