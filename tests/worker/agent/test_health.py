"""The file that a container's health check looks at."""

import asyncio
import os
from pathlib import Path

import pytest

from runpod_worker.worker.agent.health import TOUCH_INTERVAL_S, touch_health_file


class Enough(Exception):
    pass


async def test_the_file_is_touched_again_after_each_interval(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        assert path.stat().st_mtime > 1
        os.utime(path, (1, 1))
        if len(pauses) == 3:
            raise Enough

    with pytest.raises(Enough):
        await touch_health_file(path, sleep)

    assert pauses == [TOUCH_INTERVAL_S] * 3


async def test_without_a_file_the_touching_ends() -> None:
    touching = asyncio.create_task(touch_health_file(None))

    done, _ = await asyncio.wait([touching], timeout=30)

    assert done == {touching}


async def test_a_file_that_cannot_be_written_is_logged_and_does_not_end_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await touch_health_file(tmp_path / "no folder" / "alive")

    assert caplog.messages == ["health.failed"]
