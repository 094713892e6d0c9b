"""What leaves the executor: messages in order, chunks put together, the latest progress only.

User code only ever appends to a queue (single steps of the interpreter, so a JobStopped raised in the middle breaks
nothing) and wakes a thread that sends. The framework's own code sends by itself, which spares the change of threads.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator

from runpod_worker.core.errors import ChannelClosed
from runpod_worker.worker.executor.attempt import Attempt, now
from runpod_worker.worker.ipc.messages import Chunks, Progress, ToAgent

QUIET_S = 0.0005
"""Chunks that come faster than this travel together."""

QUEUE_LIMIT = 256
"""Small chunks waiting to be sent, above which a generator waits."""

LARGE_CHUNK = 16 * 1024
"""A chunk of this size is not put together with others; the generator waits until it is sent."""

Chunk = tuple[Attempt, int, bytes]
Item = Attempt | Chunk
"""A attempt job stands for its latest progress."""


class MessageSender:
    """Sends by `send`, which takes messages and may wait, from several threads one at a time."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._queue: deque[Item] = deque()
        self._sending = threading.Lock()
        self._sent_at = 0.0
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._awake = False
        self._thread = threading.Thread(target=self._work, name="runpod-worker-sender", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Send soon, from another thread. Never waits."""
        self._queue.append(item)
        if not self._awake:
            self._awake = True
            self._wake.put(True)

    def push(self, chunk: Chunk) -> None:
        """Send a chunk: the first at once, and any when nothing was sent just now; else together with others.

        Waits while too many wait.
        """
        self._queue.append(chunk)
        if chunk[1] == 0 or self.crowded(chunk) or now() - self._sent_at > QUIET_S:
            self.send()
        elif not self._awake:
            self._awake = True
            self._wake.put(True)

    def crowded(self, chunk: Chunk) -> bool:
        """Whether the generator of this chunk should wait until everything was sent."""
        return len(self._queue) >= QUEUE_LIMIT or len(chunk[2]) >= LARGE_CHUNK

    def send(self, *messages: ToAgent) -> None:
        """Send everything that waits, then these messages.

        Raises:
            ChannelClosed: the agent is gone.
        """
        with self._sending:
            waiting = self._messages() if self._queue else ()
            if waiting or messages:
                self._send(*waiting, *messages)
                self._sent_at = now()

    def close(self) -> None:
        """End the sending thread."""
        self._wake.put(False)
        self._thread.join()

    def _work(self) -> None:
        while self._wake.get():
            self._awake = False  # before the queue is emptied: what comes later wakes again
            try:
                self.send()
            except ChannelClosed:  # whoever reads the channel deals with it
                return

    def _messages(self) -> list[ToAgent]:
        messages: list[ToAgent] = []
        for item in self._taken():
            if isinstance(item, Attempt):
                messages.append(Progress(item.key, item.latest_progress()))
                continue
            attempt, index, data = item
            last = messages[-1] if messages else None
            if isinstance(last, Chunks) and last.key == attempt.key:
                last.outputs.append(data)
            else:
                messages.append(Chunks(attempt.key, index, [data]))
        return messages

    def _taken(self) -> Iterator[Item]:
        for _ in range(len(self._queue)):
            yield self._queue.popleft()


class DirectSender(MessageSender):
    """Sends each item at once, in the caller's thread: for runs without a channel, where sending costs nothing."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def put(self, item: Item) -> None:
        if isinstance(item, Attempt):
            self._send(Progress(item.key, item.latest_progress()))
        else:
            self.push(item)

    def push(self, chunk: Chunk) -> None:
        attempt, index, data = chunk
        self._send(Chunks(attempt.key, index, [data]))

    def crowded(self, chunk: Chunk) -> bool:
        return False

    def send(self, *messages: ToAgent) -> None:
        if messages:
            self._send(*messages)

    def close(self) -> None:
        """End nothing: no thread was started."""
