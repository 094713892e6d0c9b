"""The poll for stops when it is refused, and the watch of a parent that has exited already."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from runpod_worker.core.errors import LinkRefused
from runpod_worker.worker.agent.breaker import CircuitBreaker
from runpod_worker.worker.agent.heartbeats import StopPoller
from runpod_worker.worker.agent.process import Parent


class Refusing:
    """A link whose key is refused."""

    async def poll_stops(self) -> list[Any]:
        raise LinkRefused("the key is refused", status=401)


async def test_a_worker_whose_key_is_refused_polls_for_stops_at_growing_pauses() -> None:
    breaker = CircuitBreaker(now=time.monotonic, random=lambda: 1.0)
    link: Any = Refusing()
    poller = StopPoller(link, breaker, lambda event: [], now=time.monotonic, random=lambda: 1.0)

    assert [await poller._poll(tries) for tries in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_parent_that_exits_before_it_is_watched_has_exited(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    monkeypatch.setattr(os, "getppid", lambda: gone.pid)
    exited = asyncio.Event()
    ours, theirs = socket.socketpair()

    with ours, theirs:
        Parent(theirs, gone.pid).start(exited.set)
        async with asyncio.timeout(10):
            await exited.wait()

    assert exited.is_set()
