"""How frames travel between the agent and an executor: one Unix socket pair, two ends.

`AgentChannel` is the asyncio end (callbacks, many frames per wake-up), `ExecutorChannel` the blocking, thread-safe one.
A frame is four bytes of length (little endian) and that many bytes of MessagePack, bodies inside.

Bodies do not travel as a memfd passed by SCM_RIGHTS, because that was measured to be slower at every size. There and
back with uvloop on one end, 2 cores, inline / memfd: 64 KB 53 / 131 us, 512 KB 0.35 / 0.60 ms, 1 MB 0.45 / 1.15 ms,
8 MB 7.2 / 10.9 ms. Most of it is the price of fresh pages, which each new memfd pays and a kept buffer does not.

The other process may die at any byte: the end of the stream, in the middle of a frame or not, is the event "closed".
What cannot be a frame is `ChannelGarbled`, and the channel is of no use any more.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from runpod_worker.core.errors import ChannelClosed, ChannelGarbled
from runpod_worker.worker.ipc.messages import Frame, ToAgent, ToExecutor

READ_SIZE = 256 * 1024
"""Bytes asked of the socket at once: what a Unix socket holds by default, so one call empties it."""

KEEP_SIZE = 32 * 1024 * 1024
"""A buffer that had to grow for a long frame is kept up to this size: new pages for every frame cost more than it."""

HIGH_WATER = 1024 * 1024
"""Bytes waiting for the socket above which `AgentChannel.send` makes its caller wait."""

MAX_FRAME = 256 * 1024 * 1024
"""A longer frame is taken for garbage."""

_LENGTH = struct.Struct("<I")
_Received = TypeVar("_Received")
_encoder = msgspec.msgpack.Encoder()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, one for each end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class ExecutorChannel:
    """The executor's end: blocking. Any thread may send; one iterates over what arrives, until the agent is gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._inflow: _Inflow[ToExecutor] = _Inflow(msgspec.msgpack.Decoder[ToExecutor](ToExecutor).decode)
        self._sending = threading.Lock()

    def send(self, *frames: ToAgent) -> None:
        """Send the frames, in order and with nothing between them; wait while the agent does not read.

        Raises:
            ChannelClosed: the agent is gone.
        """
        data = _encode(frames)
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError as error:
                raise ChannelClosed from error

    def __iter__(self) -> Iterator[ToExecutor]:
        """Yield what the agent sends; end when it is gone.

        Raises:
            ChannelGarbled: what arrived is not a frame.
        """
        while self._fill():
            yield from self._inflow.frames()

    def close(self) -> None:
        """Close the socket; a thread that iterates comes to its end."""
        with suppress(OSError):  # the other end was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _fill(self) -> bool:
        try:
            return self._inflow.fill(self._sock)
        except OSError:  # reset by the other end, or closed by this one
            return False


class AgentChannel:
    """The agent's end, on the running loop (asyncio's or uvloop's).

    `received` is called for each frame. Nothing keeps this end from reading: a job that says more than can leave waits
    by itself (credit.py), so that no stop and no result waits for a stream.
    `closed` is called once, when the executor is gone (None), or with the error that made the channel useless. A
    `received` that raises counts as such an error. Neither is called after `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        received: Callable[[ToAgent], None],
        closed: Callable[[Exception | None], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = received
        self._closed = closed
        self._inflow: _Inflow[ToAgent] = _Inflow(msgspec.msgpack.Decoder[ToAgent](ToAgent).decode)
        self._waiting: deque[memoryview] = deque()
        self.waiting_bytes = 0
        """Bytes that wait for the executor to read."""
        self._room = asyncio.Event()
        self._room.set()
        self._open = True
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def post(self, *frames: ToExecutor) -> None:
        """Send the frames, in order, without waiting: for the small ones. Dropped when the executor is gone.

        What the socket does not take at once waits in memory; whoever posts without end should use `send`.
        """
        if not self._open:
            return
        data = memoryview(_encode(frames))
        self.waiting_bytes += len(data)
        self._waiting.append(data)
        if not self._writing:
            self._flush()

    async def send(self, *frames: ToExecutor) -> None:
        """Send the frames, in order; wait while more than `HIGH_WATER` bytes wait for the executor to read.

        Raises:
            ChannelClosed: the executor is gone.
        """
        while not self._room.is_set():
            await self._room.wait()
        if not self._open:
            raise ChannelClosed
        self.post(*frames)

    def close(self) -> None:
        """Close the socket; the executor sees the agent gone. What was not written yet is dropped."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._discard()
        self._room.set()
        self._sock.close()

    def _readable(self) -> None:
        try:
            more = self._inflow.fill(self._sock)
        except BlockingIOError:
            return
        except OSError:
            more = False
        error = self._deliver()
        if self._open and (error or not more):
            self.close()
            self._closed(error)

    def _deliver(self) -> Exception | None:
        try:
            for frame in self._inflow.frames():
                self._received(frame)
                if not self._open:
                    break
        except Exception as error:
            return error
        return None

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._sent(self._sock.send(self._waiting[0]))
        except BlockingIOError:
            self._wait_for_socket()
        except OSError:  # the reader sees the end of the stream, after the last frames the executor sent
            self._discard()
        else:
            self._stop_waiting()
        if self.waiting_bytes > HIGH_WATER:
            self._room.clear()
        else:
            self._room.set()

    def _sent(self, count: int) -> None:
        self.waiting_bytes -= count
        if count == len(self._waiting[0]):
            self._waiting.popleft()
        else:
            self._waiting[0] = self._waiting[0][count:]

    def _wait_for_socket(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._sock, self._flush)

    def _stop_waiting(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)

    def _discard(self) -> None:
        self._stop_waiting()
        self._waiting.clear()
        self.waiting_bytes = 0


def _encode(frames: Iterable[Frame]) -> bytearray:
    data = bytearray()
    for frame in frames:
        start = len(data)
        data += bytes(_LENGTH.size)
        _encoder.encode_into(frame, data, start + _LENGTH.size)
        _LENGTH.pack_into(data, start, len(data) - start - _LENGTH.size)
    return data


class _Inflow(Generic[_Received]):
    """Bytes in, frames out."""

    def __init__(self, decode: Callable[[memoryview], _Received]) -> None:
        self._decode = decode
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._start = self._end = 0

    def fill(self, sock: socket.socket) -> bool:
        """Take what the socket has. False: there will be no more."""
        self._make_room()
        count = sock.recv_into(self._buffer[self._end :])
        self._end += count
        return count > 0

    def frames(self) -> Iterator[_Received]:
        """Yield each frame that is complete."""
        while self._end - self._start >= _LENGTH.size:
            first = self._start + _LENGTH.size
            last = first + self._length()
            if self._end < last:
                return
            self._start = last
            try:
                frame = self._decode(self._buffer[first:last])
            except msgspec.MsgspecError as error:
                raise ChannelGarbled(f"not a frame: {error}") from error
            yield frame

    def _length(self) -> int:
        length: int = _LENGTH.unpack_from(self._buffer, self._start)[0]
        if length > MAX_FRAME:
            raise ChannelGarbled(f"a frame of {length} bytes: this is not our protocol")
        return length

    def _make_room(self) -> None:
        """Leave room to read into, and for the whole of the frame that has begun."""
        held = self._end - self._start
        if held == 0:
            self._start = self._end = 0
            if len(self._buffer) > KEEP_SIZE:
                self._buffer = memoryview(bytearray(READ_SIZE))
            return
        wanted = max(READ_SIZE, self._length() + _LENGTH.size if held >= _LENGTH.size else 0)
        if len(self._buffer) - self._start >= wanted:
            return
        roomy = self._buffer if len(self._buffer) >= wanted else memoryview(bytearray(wanted))
        roomy[:held] = bytes(self._buffer[self._start : self._end])
        self._buffer, self._start, self._end = roomy, 0, held
