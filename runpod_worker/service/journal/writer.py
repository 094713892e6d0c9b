"""The write side of a store whose memory decides and whose database remembers: one thread, group commit.

1. A write is decided in memory first, then handed over here, in the order of the decisions.
2. The thread takes everything that has arrived, writes it in one transaction, commits once, and reports the whole group
   to the event loop by one call. There is no timer: a group is what arrived while the last commit ran.
3. A write that fails is undone in memory, and with it every later write to the same key, newest first: they were
   decided on top of it. The thread refuses those it still meets, until the loop has said that the undoing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from runpod_worker.core.errors import StoreUnavailable
from runpod_worker.log import log

GROUP_WRITES = 512
GROUP_BYTES = 32 * 2**20
"""A group ends here, so that one commit never keeps small writes waiting behind many large ones."""

Batch = TypeVar("Batch")


def _nothing() -> None:
    return


class Write(Generic[Batch]):
    """One write: how it joins a batch (in the thread), what its commit or its failure means (on the loop)."""

    __slots__ = ("_waiters", "commit", "done", "durable", "error", "key", "merge", "size", "undo")

    def __init__(
        self,
        key: str | None,
        merge: Callable[[Batch], None],
        *,
        commit: Callable[[], object] = _nothing,
        undo: Callable[[], object] = _nothing,
        durable: bool = True,
        size: int = 0,
    ) -> None:
        self.key = key
        self.merge = merge
        self.commit = commit
        self.undo = undo
        self.durable = durable
        self.size = size
        self.error: Exception | None = None
        self.done = False
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return once the write is on disk or has failed; a waiter that is cancelled changes nothing."""
        if not self.done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def wake(self) -> None:
        """Let the waiters go."""
        self.done = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class Sink(Protocol[Batch]):
    """Where batches go. Used by the writer thread alone."""

    def batch(self) -> Batch:
        """An empty batch."""

    def commit(self, batch: Batch, *, durable: bool) -> None:
        """Write the batch in one transaction, or raise and leave nothing of it behind."""

    def close(self) -> None:
        """Release files."""


class Log(Generic[Batch]):
    """Hands writes to the thread and their outcome back to the loop."""

    def __init__(self, sink: Sink[Batch]) -> None:
        self._queue: queue.SimpleQueue[Write[Batch] | _Forgive | None] = queue.SimpleQueue()
        self._chains: dict[str, list[Write[Batch]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sink = sink
        self._thread = threading.Thread(target=_Writer(sink, self._queue, self._report).run, name="store-writer")
        self._thread.daemon = True  # a program that ends without close() must not hang; what was promised is on disk
        self._closed = False

    def busy(self, key: str) -> bool:
        """Whether a write to this key is under way."""
        return key in self._chains

    async def quiet(self, key: str) -> None:
        """Wait until no write to this key is under way."""
        while chain := self._chains.get(key):
            await chain[-1].wait()

    async def write(self, write: Write[Batch]) -> None:
        """Hand the write over at once, return when it is on disk.

        Raises:
            StoreUnavailable: it is not on disk, and memory is as it was before.
        """
        self._submit(write)
        await write.wait()
        if write.error is not None:
            raise StoreUnavailable(f"the store cannot write: {write.error}") from write.error

    async def close(self) -> None:
        """Finish what is under way, then end the thread."""
        if self._closed:
            return
        if self._loop is not None:
            await self.write(Write(None, lambda batch: None, durable=False))
        self._closed = True
        if self._loop is None:
            self._sink.close()
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _submit(self, write: Write[Batch]) -> None:
        if self._closed:
            write.undo()
            raise StoreUnavailable("the store is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        if write.key is not None:
            self._chains.setdefault(write.key, []).append(write)
        self._queue.put(write)

    def _report(self, group: list[Write[Batch]]) -> None:
        """Called by the thread."""
        assert self._loop is not None  # noqa: S101 - the thread was started with it
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, group)

    def _settle(self, group: list[Write[Batch]]) -> None:
        try:
            undone = {write.key for write in group if self._conclude(write)}
            if undone:
                self._queue.put(_Forgive(undone))
        finally:
            for write in group:
                write.wake()

    def _conclude(self, write: Write[Batch]) -> bool:
        """Make the outcome of one write true in memory. True: it was undone, and what was built on it."""
        chain = [write] if write.key is None else self._chains.get(write.key, [])
        if write not in chain:
            return False  # undone already, together with the write it was built on
        position = chain.index(write)
        doomed = [write] if write.error is None else chain[position:]
        del chain[position : position + len(doomed)]
        if not chain and write.key is not None:
            del self._chains[write.key]
        if write.error is None:
            write.commit()
            return False
        for later in reversed(doomed):
            later.undo()
        return True


class _Forgive:
    """The loop has undone everything that was built on the failed writes of these keys."""

    def __init__(self, keys: set[str | None]) -> None:
        self.keys = keys


class _Writer(Generic[Batch]):
    """The thread's side: nothing here is touched by the loop."""

    def __init__(
        self,
        sink: Sink[Batch],
        source: queue.SimpleQueue[Write[Batch] | _Forgive | None],
        report: Callable[[list[Write[Batch]]], None],
    ) -> None:
        self._sink = sink
        self._source = source
        self._report = report
        self._lost: set[str | None] = set()
        self._closing = False

    def run(self) -> None:
        """Write group after group until told to close."""
        while not self._closing:
            group = self._next_group()
            if group:
                self._write(group)
                self._report(group)
        self._sink.close()

    def _next_group(self) -> list[Write[Batch]]:
        group: list[Write[Batch]] = []
        size = 0
        item = self._source.get()
        while True:
            if item is None:
                self._closing = True
                return group
            if isinstance(item, _Forgive):
                self._forgive(group, item)
            else:
                group.append(item)
                size += item.size
            if len(group) >= GROUP_WRITES or size >= GROUP_BYTES:
                return group
            try:
                item = self._source.get_nowait()
            except queue.Empty:
                return group

    def _forgive(self, group: list[Write[Batch]], item: _Forgive) -> None:
        for write in group:  # these came before the undoing
            self._refuse_if_lost(write)
        self._lost -= item.keys

    def _refuse_if_lost(self, write: Write[Batch]) -> None:
        if write.key is not None and write.key in self._lost and write.error is None:
            write.error = StoreUnavailable("an earlier write to the same job failed")

    def _write(self, group: list[Write[Batch]]) -> None:
        for write in group if self._lost else ():
            self._refuse_if_lost(write)
        good = [write for write in group if write.error is None]
        if not good or self._commit(good) is None:
            return
        for write in good:  # find out which of them it was; the others are written
            self._refuse_if_lost(write)
            if write.error is None:
                write.error = self._commit([write])
            if write.error is not None and write.key is not None:
                self._lost.add(write.key)

    def _commit(self, writes: list[Write[Batch]]) -> Exception | None:
        batch = self._sink.batch()
        try:
            for write in writes:
                write.merge(batch)
            self._sink.commit(batch, durable=any(write.durable for write in writes))
        except Exception as exc:  # whatever it is, the callers hear of it and the thread goes on
            log.warning("store.write_failed", extra={"writes": len(writes), "error": repr(exc)})
            return exc
        return None
