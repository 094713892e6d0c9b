"""Sends the executor's messages in order. Joins consecutive chunks, and sends only the latest progress value.

Handlers' threads only append to a queue and wake the sending thread, so that `job.progress` costs microseconds. The
framework's own threads send directly, which saves a thread switch.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from runpod_worker.core.dispatch.messages import Chunks, Progress, ToAgent
from runpod_worker.core.errors import ChannelClosed
from runpod_worker.worker.executor.attempt import Attempt, now

BATCH_S = 0.0005
"""Chunks that follow each other faster than this travel together."""

MAX_QUEUED = 256
"""Items that may wait to be sent. At the limit, a generator waits until all are sent."""

LARGE_CHUNK = 16 * 1024
"""Bytes. A larger chunk is sent at once, and its generator waits for that."""


class Chunk(msgspec.Struct, gc=False):
    """One chunk of a stream, as JSON."""

    attempt: Attempt
    index: int
    data: bytes


Item = Attempt | Chunk
"""An entry of the queue; an attempt in it means the attempt's latest progress."""


class MessageSender:
    """Sends by `send`, which may wait; several threads may use a sender at the same time.

    `direct`: send each item at once in the caller's thread, for runs without a channel, where sending is cheap.
    """

    def __init__(self, send: Callable[..., None], *, direct: bool = False) -> None:
        self._send = send
        self._queue: deque[Item] = deque()
        self._send_lock = threading.Lock()
        self._sent_at = 0.0
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._awake = False
        self._thread: threading.Thread | None = None
        if not direct:
            self._thread = threading.Thread(target=self._work, name="runpod-worker-sender", daemon=True)
            self._thread.start()

    def put(self, item: Item) -> None:
        """Send soon, from another thread. Never waits."""
        self._queue.append(item)
        self._wake_up()

    def push(self, chunk: Chunk) -> None:
        """Send a chunk at once if it is the first or nothing was sent just now, else together with the next chunks.

        Waits while the queue is full.
        """
        self._queue.append(chunk)
        if chunk.index == 0 or self.must_flush(chunk) or now() - self._sent_at > BATCH_S:
            self.send()
        else:
            self._wake_up()

    def must_flush(self, chunk: Chunk) -> bool:
        """Whether the generator of this chunk has to wait until everything is sent."""
        return len(self._queue) >= MAX_QUEUED or len(chunk.data) >= LARGE_CHUNK

    def send(self, *messages: ToAgent) -> None:
        """Send everything that is queued, then these messages.

        Raises:
            ChannelClosed: the agent has closed its end.
        """
        with self._send_lock:
            queued = self._take_queued() if self._queue else ()
            if queued or messages:
                self._send(*queued, *messages)
                self._sent_at = now()

    def close(self) -> None:
        """End the sending thread."""
        self._wake.put(False)
        if self._thread is not None:
            self._thread.join()

    def _wake_up(self) -> None:
        if self._thread is None:
            self.send()
        elif not self._awake:
            self._awake = True
            self._wake.put(True)

    def _work(self) -> None:
        while self._wake.get():
            self._awake = False  # before the queue is emptied, so that an item that comes later wakes this thread again
            try:
                self.send()
            except ChannelClosed:  # the thread that reads the channel ends the executor
                return

    def _take_queued(self) -> list[ToAgent]:
        messages: list[ToAgent] = []
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            if isinstance(item, Attempt):
                messages.append(Progress(item.key, item.take_progress()))
                continue
            last = messages[-1] if messages else None
            if isinstance(last, Chunks) and last.key == item.attempt.key:
                last.outputs.append(item.data)
            else:
                messages.append(Chunks(item.attempt.key, item.index, [item.data]))
        return messages
