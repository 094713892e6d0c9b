"""Every class of the package that has both `start` and `close` keeps the contract of testing.check_start_close."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import runpod_worker
from runpod_worker.service.server import Server, open_stores
from runpod_worker.service.settings import ServiceSettings
from runpod_worker.testing import InProcessService, check_start_close


def server() -> Server:
    settings = ServiceSettings(port=0)
    return Server(settings, open_stores(settings))


CASES: dict[str, Callable[[], Any]] = {
    "runpod_worker.service.server.Server": server,
    "runpod_worker.testing.service.InProcessService": InProcessService,
}


def test_every_class_with_start_and_close_is_on_the_list() -> None:
    classes = set()
    for module in pkgutil.walk_packages(runpod_worker.__path__, "runpod_worker."):
        if "conformance.handlers" in module.name or module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__.startswith("runpod_worker"):
                classes.add(value)

    assert {f"{kind.__module__}.{kind.__name__}" for kind in classes if runs_between_start_and_close(kind)} == set(
        CASES
    )


def runs_between_start_and_close(kind: type) -> bool:
    """Whether `start` begins the object itself; one that takes an argument starts that instead."""
    if not {"start", "close"} <= set(dir(kind)):
        return False
    _, *others = inspect.signature(kind.start).parameters.values()  # type: ignore[attr-defined]
    return all(parameter.default is not parameter.empty for parameter in others)


@pytest.mark.parametrize("name", CASES)
async def test_start_and_close(name: str) -> None:
    await check_start_close(CASES[name])


class Leaky:
    """Leaves its task behind."""

    def start(self) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="leak")

    def close(self) -> None:
        self.closed = True


class Stuck:
    """Cannot be closed before it was started."""

    def __init__(self) -> None:
        self.started = asyncio.Event()

    def start(self) -> None:
        self.started.set()

    async def close(self) -> None:
        await self.started.wait()


async def test_the_check_finds_a_task_that_is_left() -> None:
    made: list[Leaky] = []

    def make() -> Leaky:
        made.append(Leaky())
        return made[-1]

    with pytest.raises(AssertionError, match="leak"):
        await check_start_close(make)
    for leaky in made:
        if hasattr(leaky, "task"):
            leaky.task.cancel()


async def test_the_check_finds_a_close_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runpod_worker.testing.tools.TIMEOUT_S", 0.01)

    with pytest.raises(TimeoutError):
        await check_start_close(Stuck)
