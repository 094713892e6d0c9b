"""How much of what a job streams and saves may be on its way: each job waits for its own bytes only.

1. Bytes are owed from the moment they are handed to the agent until they have left it for good (message WindowUpdate).
2. A job that owes at most `FLOOR` is never made to wait, whatever the others owe.
3. Above that it waits while it owes more than `CEILING`, or while all together owe more than `TOTAL`.
4. A stop ends every wait: what the job still says is dropped anyway.

So a stream that cannot leave holds up its own generator, and no other job's chunks, results or stops.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from runpod_worker.core.protocol import MIB

FLOOR = 256 * 1024
CEILING = 4 * MIB
TOTAL = 16 * MIB


class Account:
    """What one job owes. Without a bank nobody gives credit back, and nothing waits."""

    __slots__ = ("__weakref__", "_bank", "_chunks", "_closed", "_files", "_lock", "_paid", "_waiting")

    def __init__(self, bank: Bank | None = None) -> None:
        self._bank = bank
        self._chunks = 0  # counted by the handler's thread alone
        self._files = 0
        self._lock = threading.Lock()
        self._paid = 0  # counted by the thread that reads the channel alone
        self._closed = False
        self._waiting: deque[Callable[[], object]] = deque()

    @property
    def owed(self) -> int:
        """Bytes that have not left the agent."""
        return self._chunks + self._files - self._paid

    @property
    def has_room(self) -> bool:
        """Whether more may be handed over now."""
        if self._bank is None or self._closed:
            return True
        owed = self.owed
        return owed <= FLOOR or (owed <= CEILING and self._bank.owed <= TOTAL)

    def chunk(self, size: int) -> None:
        """A chunk was handed over."""
        self._chunks += size

    def file(self, size: int) -> None:
        """A file was handed over. From any thread."""
        with self._lock:
            self._files += size

    def wait(self) -> None:
        """Wait, in a thread, until there is room."""
        if not self.has_room:
            room = threading.Event()
            self.when_room(room.set)
            room.wait()

    async def wait_on_loop(self) -> None:
        """Wait, in a task, until there is room."""
        if not self.has_room:
            loop, room = asyncio.get_running_loop(), asyncio.Event()
            self.when_room(lambda: loop.call_soon_threadsafe(room.set))
            await room.wait()

    def when_room(self, call: Callable[[], object]) -> None:
        """Call once there is room: now, or in the thread that brings it."""
        self._waiting.append(call)  # before the look: who brings room from here on finds it
        if self.has_room:
            self._wake()

    def pay(self, size: int) -> None:
        """So many bytes have left the agent."""
        self._paid += size
        if self._waiting and self.has_room:
            self._wake()

    def close(self) -> None:
        """The job is to stop: nothing waits any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        while True:
            try:
                call = self._waiting.popleft()
            except IndexError:
                return
            call()


class Bank:
    """The accounts of one executor's jobs, each for as long as somebody can still add to it."""

    def __init__(self) -> None:
        self._accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()

    def open(self, key: str) -> Account:
        """A new job's account."""
        account = self._accounts[key] = Account(self)
        return account

    def pay(self, key: str, size: int) -> None:
        """The agent says that so many bytes of the job have left."""
        account = self._accounts.get(key)
        if account is not None:
            account.pay(size)

    @property
    def owed(self) -> int:
        """What all jobs owe."""
        found = (ref() for ref in self._accounts.valuerefs())  # a list: other threads open accounts meanwhile
        return sum(account.owed for account in found if account is not None)
